"""The search from beginning to end: library, structures, race, fusions, int8, decision."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import keras

from saikei.batches import ArrayData, as_arrays
from saikei.budget import Budget
from saikei.calibration.samples import calibration_samples
from saikei.distilling.stored_teacher import StoredTeacher
from saikei.executors import Executor
from saikei.graph import read
from saikei.runs import numbers
from saikei.runs.candidate import Candidate
from saikei.runs.details import Details
from saikei.runs.front import cost_axis
from saikei.runs.record import Decision, Run, RunSettings
from saikei.scoring.labelled import Labelled
from saikei.scoring.observed import held_out
from saikei.search.accounts import Accounts
from saikei.search.boosted import BOOST, BoostedCandidates, boost_candidates
from saikei.search.compose import Composition, Ensemble, ensembles
from saikei.search.conclude import SearchResults, Session, complete_run, conclude, write_run
from saikei.search.contest import Contest
from saikei.search.context import RunContext
from saikei.search.events import Events
from saikei.search.folder import RunFolder
from saikei.search.fused import FusedCandidates, fuse_candidates
from saikei.search.gauge import Gauge
from saikei.search.interrupts import until_interrupted, without_retracing_warnings
from saikei.search.methods import FUSIONS, Methods
from saikei.search.originals import (
    Originals,
    Teacher,
    choose_teacher,
    measure_originals,
    store_originals,
)
from saikei.search.quantized import Int8Candidates, quantize_candidates
from saikei.search.race import Schedule, Space, branch, finalists, space_of, trial_epochs
from saikei.search.sizes import batch_size_for
from saikei.search.splits import SearchData
from saikei.search.structures import Structures, find_structures
from saikei.training.soft_labels import soft_obstacles

# The share of all epochs in which one network learns from several: the best one; and, where no
# savings are asked for, the given one.
STUDENT_SHARE, FURTHER_SHARE = 1 / 10, 2 / 3
# Families of which each keeps a candidate until the third rung.
MOST_FAMILIES = 4


@dataclass(frozen=True)
class Asked:
    """What a user asked for.

    Args:
        budget: Limits on the costs of the result.
        methods: The edits and fusions that take part.
        effort: Total number of epochs of all trainings.
        settings: Training settings as given.
        seed: Seed of everything random.
        latency: Whether latencies are measured.
        metric: Metric to choose by; `None` for that of the task.
        rivals: Whether fresh weights of the winner's structure are trained for comparison.
        repeats: How often the winner is trained, each time with another seed.
        uniform: Whether only structures of uniform shape are tried.
    """

    budget: Budget
    methods: Methods
    effort: int
    settings: Mapping[str, Any]
    seed: int
    latency: bool
    metric: Any
    rivals: bool = True
    repeats: int = 1
    uniform: bool = False

    def values(self) -> list[Any]:
        """All of it as JSON-ready values, for the fingerprint."""
        metric = None if self.metric is None else getattr(self.metric, "name", str(self.metric))
        settings = {name: repr(value) for name, value in sorted(self.settings.items())}
        names = list(self.methods.names)
        budget = self.budget.to_dict()
        trained = [self.effort, self.rivals, self.repeats]
        shape = ["uniform"] if self.uniform else []
        return [budget, names, trained, settings, self.seed, self.latency, metric, *shape]


class Pipeline:
    """Runs a search, and writes its record to the folder.

    Args:
        models: The given models by name.
        data: Training, validation and test data.
        folder: Folder of the run, locked.
        asked: What the user asked for.
        executor: Runs measurements and trainings.
        session: Start and fingerprint of the run.
        events: Gets what happens.
    """

    def __init__(
        self,
        models: Mapping[str, keras.Model],
        data: SearchData,
        folder: RunFolder,
        asked: Asked,
        executor: Executor,
        session: Session,
        events: Events,
    ) -> None:
        self._models, self._data, self._folder = models, data, folder
        self._asked, self._executor = asked, executor
        self._session, self._events = session, events

    def run(self) -> None:
        """Search, decide and write the record.

        Raises:
            KeyboardInterrupt: If it was interrupted, after a report of what is there was written.
        """
        clock = time.perf_counter()
        first = next(iter(self._models.values()))
        judge = held_out(first, self._data.validation, self._asked.metric)
        # Made now to check its labels before hours of training.
        test = self._data.test
        final = None if test is None else held_out(first, test, self._asked.metric)
        space = self._space(judge)
        self._events.stage("measuring the given models")
        calibration = _calibration(first, self._data.train)
        budget = self._asked.budget
        gauge = Gauge.of(self._models.values(), calibration, self._asked.latency, budget.batch_size)
        originals = measure_originals(self._models, judge, budget, self._folder, gauge)
        taught_by = choose_teacher(originals, judge)
        self._folder.begin(self._session.fingerprint)
        store_originals(originals, self._folder)
        for one in originals.candidates:
            self._events.candidate(one.name, one.validation, one.cost, one.fits, 0)
        context = RunContext(
            originals=originals,
            teacher=_stored(taught_by, self._data.train),
            teacher_name=taught_by.name,
            train=self._data.train,
            validation=self._data.validation,
            calibration=calibration,
            judge=judge,
            budget=budget,
            methods=self._asked.methods,
            folder=self._folder,
            gauge=gauge,
            executor=self._executor,
            seed=self._asked.seed,
            steps=self._data.steps(space.settings(space.first(1)[0], "kept").batch_size),
        )
        search = _Search(context, self._asked, space, self._events, taught_by)
        with until_interrupted() as interrupt, without_retracing_warnings():
            search.run()
        self._events.stage("deciding")
        results = search.results(self._session)
        if interrupt.error is not None and not any(c.fits for c in results.candidates):
            # There is nothing to report yet.
            interrupt.reraise()
        arrays = isinstance(self._data.train, tuple)
        settings = _settings(self._asked, originals, space, gauge, arrays)
        run = conclude(results, context, self._session, settings, final)
        run = replace(search.add_to(run, results), seconds=time.perf_counter() - clock)
        if interrupt.error is not None:
            complete_run(run, self._folder, Details())
            page = self._folder.path / "report.html"
            interrupt.error.add_note(f"The report of what is there: {page}.")
            interrupt.reraise()
        write_run(run, context, self._session.classes)
        self._events.emit("finished", chosen=run.chosen)

    def _space(self, judge: Labelled) -> Space:
        """The training settings to try with this data."""
        train, samples = self._data.train, self._data.samples["train"]
        arrays = as_arrays(train, "train") if isinstance(train, tuple) else None
        validation = as_arrays(self._data.validation, "validation")
        obstacles = soft_obstacles(arrays, validation, judge.tasks)
        size = None if arrays is None else batch_size_for(samples)
        return space_of(self._asked.settings, size, obstacles)


@dataclass
class _Search:
    """The steps of a search, and what they have given so far."""

    context: RunContext
    asked: Asked
    space: Space
    events: Events
    taught_by: Teacher
    structures: Structures | None = None
    contest: Contest | None = None
    composition: Composition | None = None
    fused: FusedCandidates | None = None
    boosted: BoostedCandidates = field(default_factory=BoostedCandidates)
    int8: Int8Candidates | None = None
    decisions: list[Decision] = field(default_factory=list)

    def run(self) -> None:
        """All steps, one after the other."""
        context, events = self.context, self.events
        self.structures = find_structures(context, events, self.asked.uniform)
        entries, space, fuses = self.structures.entries, self.space, bool(context.methods.fusions)
        boosts, effort = BOOST in context.methods.fusions, self.asked.effort
        series = round(STUDENT_SHARE * effort) if boosts else 0
        student, schedule = self._schedule(effort - series, fuses)
        # Mixed rows help where they still look like rows: images do; tables and series are worse.
        explained = context.explained if context.learned else None
        mixes = context.overfits and context.reads_images
        space = replace(space, explained=explained, mixes=mixes)
        self.contest = Contest(context, schedule, space, events)
        self.decisions += self.contest.run(entries)
        if not context.saves:
            # First, since it may be a member too: an average of any cost teaches as well as any.
            self.decisions += self.contest.teach({}, student)
        self.decisions += self.contest.compare(self.asked.repeats)
        if fuses:
            self._compose()
            if boosts:
                self._boost(series)
        if context.saves:
            self.decisions += self.contest.teach(self._ensembles(), student)
        if context.methods.quantize:
            trained = self.contest.candidates()
            events.stage("quantizing to int8")
            self.int8 = quantize_candidates(trained, context, self.contest.load)

    def _schedule(self, effort: int, fuses: bool) -> tuple[int, Schedule]:
        """Epochs of the network that learns from several, and the schedule of the race.

        Args:
            effort: Epochs of both, and of rivals.
            fuses: Whether any fusion takes part.
        """
        context, rivals = self.context, self.asked.rivals
        trial = trial_epochs(context.steps)
        assert self.structures is not None
        entries = self.structures.entries
        families = min(len({one.family for one in entries} - {"fresh"}), MOST_FAMILIES)
        places = finalists(context.budget, context.whole, context.methods.fusions)
        if context.saves:
            student = round(STUDENT_SHARE * effort) if fuses else 0
            return student, Schedule.of(effort - student, families, places, rivals, trial)
        if not rivals:
            student = round(FURTHER_SHARE * effort) if entries else effort
            return student, Schedule.of(max(1, effort - student), families, places, False, trial)
        if not entries:
            return effort // 2, replace(Schedule.of(1, 1, 1, rivals=False), rival=effort // 2)
        # Rivals are trained for its epochs, and for those of the race too, with one beginning.
        student, race = effort // 3, max(1, effort // 10)
        while 2 * (student + race) + branch(student) > effort and student:
            student -= 1
        schedule = Schedule.of(race, families, places, False, trial)
        return student, replace(schedule, rival=student + schedule.search)

    def _compose(self) -> None:
        contest, context = self.contest, self.context
        assert contest is not None
        self.events.stage("fusing")
        self.composition = ensembles(
            contest.members(contest.racers),
            context.judge,
            context.budget,
            context.whole,
            context.methods.fusions,
            context.seed,
        )
        self.fused = fuse_candidates(self.composition, context, contest.load)
        for one in self.fused.candidates:
            self.events.candidate(one.name, one.validation, one.cost, one.fits, 0)

    def _boost(self, epochs: int) -> None:
        contest = self.contest
        assert contest is not None
        self.events.stage("training a boosted series")
        members = contest.members(contest.racers)
        self.boosted = boost_candidates(members, self.context, contest.load, epochs)
        for one in self.boosted.candidates:
            self.events.candidate(one.name, one.validation, one.cost, one.fits, 0)

    def _ensembles(self) -> Mapping[str, Ensemble]:
        """The fused models within the budget, by name."""
        return {} if self.fused is None else self.fused.ensembles

    def results(self, session: Session) -> SearchResults:
        """All candidates and decisions so far."""
        context, contest = self.context, self.contest
        trained = [] if contest is None else contest.candidates()
        fused = () if self.fused is None else self.fused.candidates
        int8 = () if self.int8 is None else self.int8.candidates
        candidates = (
            *context.originals.candidates,
            *trained,
            *fused,
            *self.boosted.candidates,
            *int8,
        )
        decisions = [*session.noted, self.taught_by.decision, *self.decisions]
        decisions += () if self.structures is None else self.structures.decisions
        decisions += [_kept_as_cut(one) for one in trained if one.unimproved]
        decisions += () if self.fused is None else self.fused.decisions
        decisions += self.boosted.decisions
        decisions += () if self.int8 is None else self.int8.decisions
        return SearchResults(
            candidates=candidates,
            outputs={c.name: context.folder.outputs(c.name) for c in candidates},
            decisions=tuple(decisions),
            baseline=context.originals.baseline,
        )

    def accounts(self, results: SearchResults) -> Accounts:
        """What the records of the methods are made of."""
        notes = {}
        if self.int8 is not None and self.int8.note:
            notes["quantize"] = self.int8.note
        if not any(map(self.context.inputs, self.context.models)):
            notes["multimodal"] = "All models read the same inputs."
        notes |= {one.topic: one.reason for one in self.boosted.decisions}
        refused = {} if self.composition is None else self.composition.refused
        return Accounts(
            methods=self.context.methods,
            libraries={} if self.structures is None else self.structures.libraries,
            considered={} if self.composition is None else self.composition.considered,
            notes={**notes, **{name: why for name, why in refused.items() if name in FUSIONS}},
            candidates=results.candidates,
            outputs=results.outputs,
            judge=self.context.judge,
            axis=cost_axis(self.context.budget),
        )

    def add_to(self, run: Run, results: SearchResults) -> Run:
        """The record of the run with the accounts of methods, epochs and libraries."""
        records = {} if self.structures is None else self.structures.records
        return replace(
            run,
            methods=self.accounts(results).records(run.candidate(run.chosen)),
            effort=(
                *(() if self.contest is None else self.contest.effort),
                *self.boosted.effort,
            ),
            library=records,
        )


def _kept_as_cut(candidate: Candidate) -> Decision:
    training, before = candidate.training, candidate.validation
    assert training is not None
    losses = training.curves.get("val_loss", ())
    after = f", and {min(losses):.4g} at best after it" if losses else ""
    return Decision(
        f"weights of {candidate.name}",
        "as after the cut, untrained",
        f"Training did not improve them, down to a learning rate of {training.learning_rate:.2g}: "
        f"the loss on validation was {before.loss:.4g} before training{after}. The {before.name} "
        f"is {numbers.metric_value(before.name, before.value)}.",
    )


def _stored(taught_by: Teacher, train: Any) -> keras.Model | StoredTeacher:
    """The teacher's predictions of the training rows, where these are arrays, made once."""
    if isinstance(train, tuple):
        # Rows in the order of the data, as students may read other inputs than the teacher.
        return replace(StoredTeacher.of(taught_by.model, train), digests=None)
    return taught_by.model


def _calibration(model: keras.Model, train: Any) -> Any:
    """The data that options are measured by and weights refitted to.

    A dataset may have another order in each pass, so samples of one pass are used for all.
    """
    if isinstance(train, tuple):
        return train
    samples = calibration_samples(read(model), train)
    return ArrayData(samples.inputs, samples.labels, samples.weights).parts


def _settings(
    asked: Asked, originals: Originals, space: Space, gauge: Gauge, arrays: bool
) -> RunSettings:
    return RunSettings(
        budget=asked.budget.to_dict(),
        limits=asked.budget.limits(originals.baseline.cost),
        methods=asked.methods.names,
        effort=asked.effort,
        batch_size=space.fixed.get("batch_size") if arrays else None,
        seed=asked.seed,
        sizes=gauge.sizes(originals.models[originals.baseline.name]),
    )
