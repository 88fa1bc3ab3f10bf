"""The race of a run: what takes part, what each candidate adds, its rivals, and a last student."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import keras
import numpy as np
from scipy import stats

from saikei.budget import Budget
from saikei.errors import WorkError
from saikei.executors import TaskFailure
from saikei.runs import numbers
from saikei.runs.candidate import Candidate
from saikei.runs.front import cost_axis, goodness
from saikei.runs.record import Decision, EffortRecord
from saikei.search.compose import Ensemble, Member, ensembles, gains, teacher
from saikei.search.compose.spend import Limits
from saikei.search.context import RunContext
from saikei.search.events import Events
from saikei.search.race import (
    RIVAL,
    Driver,
    Entry,
    Part,
    Plan,
    Racer,
    RungResult,
    RungTask,
    Schedule,
    Shared,
    Space,
    race,
    race_repeats,
    race_rivals,
    small_unproven,
    trained,
)
from saikei.search.student import FURTHER, STUDENT, Learner, given_of, winner_of
from saikei.search.trained_records import TrainedRecords, structure_key

# Equal metrics are distinguished by the loss.
_LOSS_SHARE = 1e-6
# A budget that every ensemble keeps.
_ANY_COST = Budget(macs=10**18)
_NO_RIVALS = Decision(
    "rivals from fresh weights",
    "not trained",
    "Whether the winner's weights were worth keeping was not examined beyond the race: rivals=True "
    "trains its structure from fresh weights, for its epochs and for those of the whole search.",
)


@dataclass(frozen=True, eq=False)
class Contest:
    """The trainings of a run.

    Args:
        context: Models, data and budget of the run.
        schedule: How many candidates are trained for how many epochs.
        space: The training settings to try.
        events: Gets each result.
    """

    context: RunContext
    schedule: Schedule
    space: Space
    events: Events
    _racers: dict[str, Racer] = field(default_factory=dict)
    _teachers: dict[str, Any] = field(default_factory=dict)
    _spent: Counter[tuple[str, int]] = field(default_factory=Counter)
    _counts: Counter[tuple[str, int]] = field(default_factory=Counter)

    @property
    def racers(self) -> tuple[Racer, ...]:
        """The candidates that were trained, in the order in which they began."""
        return tuple(self._racers.values())

    @property
    def effort(self) -> tuple[EffortRecord, ...]:
        """Where the epochs went."""
        return tuple(
            EffortRecord(family, rung, self._counts[family, rung], epochs)
            for (family, rung), epochs in self._spent.items()
        )

    def run(self, entries: Sequence[Entry]) -> tuple[Decision, ...]:
        """Race the entries.

        Args:
            entries: What takes part, the most promising first.

        Returns:
            What dropped out and why.
        """
        context = self.context
        self._teachers[context.teacher_name] = context.teacher
        driver = self._driver(self._shared(self._teachers))
        self.events.stage("training")
        if not entries:
            return ()
        found = race(
            entries,
            self.schedule,
            self.space,
            driver,
            self._value,
            seed=context.seed,
            axis=cost_axis(context.budget),
            study=context.folder.path / "study.db",
            more=partial(self._more, entries),
        )
        self._racers.clear()
        self._take(found)
        self._add(driver)
        return _left_out(driver)

    def compare(self, repeats: int = 1) -> tuple[Decision, ...]:
        """Train the winner with other seeds, and its structure from fresh weights.

        Where the given model was trained on, it is the one to compare with.

        Args:
            repeats: How often the winner is trained, each time with another seed.

        Returns:
            What dropped out and why, and how much the seed matters.
        """
        asked = () if self.schedule.rival else (_NO_RIVALS,)
        if not self._racers or (repeats == 1 and asked):
            return asked
        context = self.context
        winner = self._racers.get(FURTHER) or self.winner
        driver = self._driver(self._shared(self._teachers))
        again: tuple[Racer, ...] = ()
        if repeats > 1:
            self.events.stage("training the winner with other seeds")
            again = race_repeats(winner, repeats, driver, context.seed)
        if self.schedule.rival:
            self.events.stage("training rivals from fresh weights")
            rivals = race_rivals(winner, self.schedule, self.space, driver, context.seed)
            self._racers.pop(RIVAL, None)
            self._take(rivals)
        self._take(again)
        self._add(driver)
        return (*_left_out(driver), *asked, *(_over_seeds(winner, again) if again else ()))

    def teach(self, fused: Mapping[str, Ensemble], epochs: int) -> tuple[Decision, ...]:
        """Train one network on, with the best ensemble as its teacher.

        The ensemble may cost more than the budget, since only its predictions are used. The network
        is the winner, which is left as it is where no ensemble is better. Where the budget asks for
        no savings it is the given model, which is trained on in any case.

        Args:
            fused: The fused models within the budget, by name.
            epochs: Number of epochs.

        Returns:
            The teacher, and why it was chosen or none was.
        """
        context = self.context
        if epochs < 1 or (context.saves and not self._racers):
            return ()
        learner = winner_of(self.winner) if context.saves else given_of(context, self.space)
        name, ensemble = self._best_ensemble(fused)
        if ensemble is not None and not learner.learns_from(ensemble, context.judge):
            ensemble = None
        if ensemble is None and context.saves:
            return (Decision(STUDENT, "not trained", learner.reason("", None, 0)),)
        self.events.stage("training one network on")
        teachers, by = self._teachers_of(learner, name, ensemble)
        self._teachers.update(teachers)
        plan = learner.plan_of(by, ensemble)
        shared = replace(self._shared(teachers), originals=self._parent(plan))
        driver = self._driver(shared)
        (outcome,) = driver.train([Part(RungTask(plan, 0, epochs, epochs, cost=learner.cost))])
        self._add(driver)
        if isinstance(outcome, TaskFailure):
            return _left_out(driver)
        self._take([Racer(plan, epochs, replace(outcome, state=None))])
        reason = learner.reason(by, ensemble, epochs)
        return (Decision(f"teacher of {plan.name}", by or "labels alone", reason),)

    def _teachers_of(
        self, learner: Learner, name: str, ensemble: Ensemble | None
    ) -> tuple[dict[str, Any], str | None]:
        """What a network is to learn from beside its labels, and the name of it."""
        context = self.context
        if ensemble is None:
            own, asked = context.teacher_name, "alpha" in self.space.given
            alone = own == learner.plan.parent and not asked
            return ({}, None) if alone else ({own: context.teacher}, own)
        taught_by = teacher(ensemble, self.load, context.train)
        if isinstance(context.train, tuple):
            # Rows in the order of the data: it may read other inputs than the ensemble.
            taught_by = replace(taught_by, digests=None)
        return {name: taught_by}, name

    def _parent(self, plan: Plan) -> Mapping[str, keras.Model]:
        return {plan.parent: self.load(plan.parent)}

    def _best_ensemble(self, fused: Mapping[str, Ensemble]) -> tuple[str, Ensemble | None]:
        """The best fused model, or the best average of any cost where that is better."""
        context = self.context
        every = ensembles(
            self.members(self.racers), context.judge, _ANY_COST, context.whole, ("average",)
        ).ensembles
        averages = [one for one in every if one.method == "average"][:1]
        known = [*fused.items(), *(("large average", one) for one in averages)]
        return max(
            known, key=lambda one: (context.judge.merit(one[1].outputs), one[0]), default=("", None)
        )

    def _take(self, racers: Iterable[Racer]) -> None:
        self._racers.update({one.plan.name: one for one in racers})

    def _add(self, driver: Driver) -> None:
        self._spent.update(driver.spent)
        self._counts.update(driver.counts)

    def load(self, name: str) -> keras.Model:
        """The model of a candidate, or a given model.

        Args:
            name: Its name.
        """
        if name not in self._racers:
            return self.context.load(name)
        racer = self._racers[name]
        stored = self.context.folder.rungs.load(name, racer.epoch)
        if not isinstance(stored, RungResult) or stored.state is None:
            raise WorkError(
                f"The weights of candidate '{name}' are gone from '{self.context.folder.path}': "
                "run the search again into a new folder."
            )
        shared = self._shared({})
        if racer.plan.parent not in shared.originals:
            shared = replace(shared, originals={racer.plan.parent: self.load(racer.plan.parent)})
        return trained(shared, racer.plan, stored.state)

    def members(self, racers: Sequence[Racer]) -> list[Member]:
        """The given models and some candidates as members of ensembles."""
        given = [
            Member(
                name=one.name,
                family="given",
                cost=one.cost,
                outputs=self.context.originals.outputs[one.name],
                model=partial(self.context.load, one.name),
                inputs=self.context.inputs(one.name),
            )
            for one in self.context.originals.candidates
        ]
        return [*given, *(self._member(one) for one in racers)]

    def _member(self, racer: Racer) -> Member:
        plan = racer.plan
        return Member(
            name=plan.name,
            family=plan.family,
            cost=racer.result.cost,
            outputs=racer.result.outputs,
            model=partial(self.load, plan.name),
            # Weights that were drawn anew have nothing in common with those that were kept.
            structure=f"{structure_key(plan)}-{plan.weights}",
            inputs=self.context.inputs(plan.parent),
        )

    def _value(self, racers: Sequence[Racer]) -> list[float]:
        """What each candidate adds to the best ensemble."""
        context = self.context
        members = [replace(m, cost=context.shipped(m.cost)) for m in self.members(racers)]
        found = gains(members, context.judge, context.budget, context.whole)
        known = {name: one.metric + _LOSS_SHARE * one.loss for name, one in found.items()}
        lowest = min(known.values(), default=0.0)
        if self.schedule.rungs[-1].places == 1:
            # Behind all others that keep the budget, in their order.
            fitting = [racer for racer in racers if racer.plan.name in known]
            span = 1 + max(known.values(), default=0.0) - lowest
            for name in small_unproven(fitting, cost_axis(context.budget), context.judge):
                known[name] -= span
        # Over the budget: behind those that keep it, in the order of their scores.
        over = lowest - 1e6
        return [known.get(r.plan.name, over + goodness(r.result.score)) for r in racers]

    def _more(self, entries: Sequence[Entry], racers: Sequence[Racer]) -> list[Entry]:
        """Entries for what the best ensemble leaves of the budget, first those not yet tried."""
        if not racers:
            return []
        context = self.context
        members = self.members(racers)
        best = ensembles(
            members, context.judge, context.budget, context.whole, ("average",), context.seed
        ).ensembles
        if not best:
            return []
        left = Limits(context.budget, context.whole).left(best[0].cost)
        if min(left.values(), default=0.0) < 0.1:
            return []
        tried = {(r.plan.family, r.plan.parent, structure_key(r.plan)) for r in racers}
        return [one for one in entries if (one.family, one.parent, structure_key(one)) not in tried]

    @property
    def winner(self) -> Racer:
        """The best candidate within the budget, of those that were trained longest."""
        context = self.context
        racers = [r for r in self._racers.values() if context.fits(context.shipped(r.result.cost))]
        racers = [r for r in racers or self._racers.values() if r.plan.family != RIVAL]
        last = max(r.epoch for r in racers)
        return max(
            (r for r in racers if r.epoch == last),
            key=lambda r: (goodness(r.result.score), -r.result.score.loss, r.plan.name),
        )

    def _shared(self, teachers: Mapping[str, object]) -> Shared:
        """What trainings share."""
        context = self.context
        return Shared(
            originals=context.models,
            teachers=teachers,
            train=context.train,
            validation=context.validation,
            calibration=context.calibration,
            judge=context.judge,
            budget=context.planned_budget,
            whole=context.whole,
            gauge=context.gauge,
            losses={one.name: one.validation.loss for one in context.originals.candidates},
            training_losses=context.training_losses,
            steps=context.steps,
        )

    def _driver(self, shared: Shared) -> Driver:
        folder = self.context.folder.rungs
        return Driver(shared, self.context.executor, folder.load, folder.store, watch=self._report)

    def _report(self, task: RungTask, outcome: RungResult | TaskFailure) -> None:
        """Report a result to the listeners, also of one that an earlier call has stored."""
        name, epochs = task.plan.name, task.end - task.begin
        seconds = 0.0 if isinstance(outcome, TaskFailure) else outcome.seconds
        self.events.emit("trained", name=name, epochs=epochs, total=task.end, took=seconds)
        if isinstance(outcome, TaskFailure):
            self.events.emit("failed", name=name, reason=outcome.reason)
            return
        # Also where the race is interrupted, so that the report shows what there is.
        self._racers[name] = Racer(task.plan, task.end, replace(outcome, state=None))
        fits = self.context.fits(outcome.cost)
        self.events.candidate(name, outcome.score, outcome.cost, fits, task.end)

    def candidates(self) -> list[Candidate]:
        """The records of all candidates that were trained, stored with their models."""
        records = TrainedRecords(self.context, self._racers, self.schedule.full, self.load)
        return [records.stored(racer) for racer in self.racers]


def _left_out(driver: Driver) -> tuple[Decision, ...]:
    """What dropped out, and why."""
    return tuple(Decision(name, "left out", one.reason) for name, one in driver.failures.items())


def _over_seeds(winner: Racer, again: Sequence[Racer]) -> tuple[Decision]:
    """Mean and interval of a metric over seeds."""
    scores = [one.result.score for one in (winner, *again)]
    values = np.array([one.value for one in scores])
    mean, error = values.mean(), stats.sem(values)
    half = stats.t.ppf(0.975, len(values) - 1) * error
    name = scores[0].name
    shown = [numbers.metric_value(name, one) for one in (mean, mean - half, mean + half)]
    return (
        Decision(
            f"seeds of {winner.plan.name}",
            f"{shown[0]} in the mean of {len(values)}",
            f"Trained {len(values)} times for {winner.epoch} epochs with other seeds: its "
            f"{name.replace('_', ' ')} on validation is {shown[0]} in the mean, with a 95 % "
            f"interval from {shown[1]} to {shown[2]}.",
        ),
    )
