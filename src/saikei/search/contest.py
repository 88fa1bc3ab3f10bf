"""The race of a run: what takes part, what each candidate adds, its rivals, and a last student."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import keras

from saikei.codec import to_jsonable
from saikei.errors import WorkError
from saikei.executors import TaskFailure
from saikei.runs.candidate import Candidate, LayerChange, Training
from saikei.runs.front import cost_axis, goodness
from saikei.runs.record import Decision, EffortRecord
from saikei.search.compose import Member, Team, gains, lack, teacher, teams
from saikei.search.context import RunContext
from saikei.search.events import Events
from saikei.search.layers import layer_changes
from saikei.search.race import (
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
    race_rivals,
    trained,
)

STUDENT = "student"
# Equal metrics are distinguished by the loss.
_LOSS_SHARE = 1e-6
_RIVAL = "rival"


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
        """Race the entries, and then the winner's rivals.

        Args:
            entries: What takes part, the most promising first.

        Returns:
            What dropped out, and why.
        """
        context = self.context
        driver = self._driver(self._shared({context.teacher_name: context.teacher}))
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
        self._racers.update({one.plan.name: one for one in found.racers})
        self.events.stage("training rivals from fresh weights")
        rivals = race_rivals(self._winner(), self.schedule, self.space, driver, context.seed)
        self._racers.pop(_RIVAL, None)
        self._racers.update({one.plan.name: one for one in rivals})
        self._add(driver)
        return tuple(
            Decision(name, "left out", failure.reason) for name, failure in driver.failures.items()
        )

    def teach(self, team: Team, name: str, epochs: int) -> str | None:
        """Train the winner on with a team as its teacher: one network of the same budget.

        Args:
            team: The team.
            name: Name of the team's candidate.
            epochs: Number of epochs.

        Returns:
            Name of the student; `None` if its training failed.
        """
        context, winner = self.context, self._winner()
        self.events.stage(f"teaching one network what {name} predicts")
        taught_by = teacher(team, self.load, context.train)
        if isinstance(context.train, tuple):
            # Rows in the order of the data: the winner may read other inputs than the team.
            taught_by = replace(taught_by, digests=None)
        shared = self._shared({name: taught_by})
        model = self.load(winner.plan.name)
        driver = self._driver(replace(shared, originals={winner.plan.name: model}))
        plan = replace(
            winner.plan,
            name=STUDENT,
            family=f"{STUDENT} of {name}",
            parent=winner.plan.name,
            recipe=None,
            weights="kept",
            teacher=name,
        )
        part = RungTask(plan, 0, epochs, epochs, cost=winner.result.cost)
        (outcome,) = driver.train([Part(part)])
        self._add(driver)
        if isinstance(outcome, TaskFailure):
            return None
        self._racers[plan.name] = Racer(plan, epochs, replace(outcome, state=None))
        return plan.name

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
        """The given models and some candidates as members of teams."""
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
            structure=f"{_digest(plan)}-{plan.weights}",
            inputs=self.context.inputs(plan.parent),
        )

    def _value(self, racers: Sequence[Racer]) -> list[float]:
        """What each candidate adds to the best team."""
        context = self.context
        members = [replace(m, cost=context.shipped(m.cost)) for m in self.members(racers)]
        found = gains(members, context.judge, context.budget, context.whole)
        lowest = min((one.metric + _LOSS_SHARE * one.loss for one in found.values()), default=0.0)
        values = []
        for racer in racers:
            gain = found.get(racer.plan.name)
            if gain is None:
                # Over the budget: behind those that keep it, in the order of their scores.
                values.append(lowest - 1e6 + goodness(racer.result.score))
            else:
                values.append(gain.metric + _LOSS_SHARE * gain.loss)
        return values

    def _more(self, entries: Sequence[Entry], racers: Sequence[Racer]) -> list[Entry]:
        """Entries for what the best team leaves of the budget, those that were not tried first."""
        if not racers:
            return []
        context = self.context
        members = self.members(racers)
        best = teams(
            members, context.judge, context.budget, context.whole, ("average",), context.seed
        ).teams
        if not best:
            return []
        left = lack(best[0], members, context.judge, context.budget, context.whole).left
        if min(left.values(), default=0.0) < 0.1:
            return []
        tried = {(r.plan.family, r.plan.parent, _digest(r.plan)) for r in racers}
        return [one for one in entries if (one.family, one.parent, _digest(one)) not in tried]

    def _winner(self) -> Racer:
        """The best candidate within the budget, of those that were trained longest."""
        context = self.context
        racers = [r for r in self._racers.values() if context.fits(context.shipped(r.result.cost))]
        racers = [r for r in racers or self._racers.values() if r.plan.family != _RIVAL]
        last = max(r.epoch for r in racers)
        return max(
            (r for r in racers if r.epoch == last),
            key=lambda r: (goodness(r.result.score), -r.result.score.loss, r.plan.name),
        )

    def _shared(self, teachers: Mapping[str, object]) -> Shared:
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
        )

    def _driver(self, shared: Shared) -> Driver:
        folder = self.context.folder.rungs
        return Driver(shared, self.context.executor, folder.load, folder.store, watch=self._tell)

    def _tell(self, task: RungTask, outcome: RungResult | TaskFailure) -> None:
        """Tell the listeners of a result, also of one that an earlier call has stored."""
        name, epochs = task.plan.name, task.end - task.begin
        self.events.emit("trained", name=name, epochs=epochs, total=task.end)
        if isinstance(outcome, TaskFailure):
            self.events.emit("failed", name=name, reason=outcome.reason)
            return
        # Also where the race is interrupted, so that the report shows what there is.
        self._racers[name] = Racer(task.plan, task.end, replace(outcome, state=None))
        fits = self.context.fits(outcome.cost)
        self.events.candidate(name, outcome.score, outcome.cost, fits, task.end)

    def candidates(self) -> list[Candidate]:
        """The records of all candidates that were trained, stored with their models."""
        return [self._stored(racer) for racer in self._racers.values()]

    def _stored(self, racer: Racer) -> Candidate:
        folder, plan = self.context.folder, racer.plan
        known = folder.finished(plan.name, self._plan(racer))
        if known is not None:
            return known
        model = self.load(plan.name)
        candidate = self._record(racer, layer_changes(self.load(plan.parent), model))
        folder.save(candidate, model, racer.result.outputs)
        return candidate

    def _plan(self, racer: Racer) -> dict[str, object]:
        like = self._counterpart(racer)
        return {**to_jsonable(racer.plan.to_dict()), "epochs": racer.epoch, "like": like}

    def _counterpart(self, racer: Racer) -> str | None:
        """The candidate that a fresh one differs from in its weights alone."""
        if racer.plan.weights != "fresh":
            return None
        same = [
            r.plan.name
            for r in self._racers.values()
            if r.plan.weights == "kept"
            and _digest(r.plan) == _digest(racer.plan)
            and r.epoch == racer.epoch
        ]
        return same[0] if same else None

    def _record(self, racer: Racer, layers: tuple[LayerChange, ...]) -> Candidate:
        plan, result = racer.plan, racer.result
        parts = self.context.folder.rungs.history(plan.name)
        return Candidate(
            name=plan.name,
            kind="fresh" if plan.weights == "fresh" else "kept",
            family=plan.family,
            parent=plan.parent,
            plan=self._plan(racer),
            recipe=plan.recipe,
            members=(),
            weights=(),
            fits=self.context.fits(result.cost),
            cost=result.cost,
            before=next((p.before for p in parts if p.before is not None), None),
            validation=result.score,
            training=self._training(racer, parts),
            layers=layers,
        )

    def _training(self, racer: Racer, parts: Sequence[RungResult]) -> Training:
        settings = racer.plan.settings
        taught = racer.plan.teacher is not None
        names = dict.fromkeys(name for part in parts for name in part.curves)
        state = parts[-1].state if parts else None
        return Training(
            teacher=racer.plan.teacher,
            epochs=racer.epoch,
            total=racer.epoch if _has_own_length(racer.plan) else self.schedule.full,
            learning_rate=state.learning_rate if state else settings.learning_rate or 0.0,
            temperature=settings.temperature if taught else None,
            alpha=settings.alpha if taught else 1.0,
            seconds=sum(part.seconds for part in parts),
            curves={
                name: tuple(v for part in parts for v in part.curves.get(name, ()))
                for name in names
            },
        )


def _has_own_length(plan: Plan) -> bool:
    return plan.name.startswith((_RIVAL, STUDENT))


def _digest(plan: Plan | Entry) -> str:
    """What structures share whose models differ in their weights alone."""
    text = json.dumps([plan.parent, to_jsonable(plan.recipe)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
