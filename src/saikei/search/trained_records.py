"""The records of the candidates that were trained, stored with their models."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import keras

from saikei.codec import to_jsonable
from saikei.runs.candidate import Candidate, LayerChange, Training
from saikei.search.context import RunContext
from saikei.search.layers import layer_changes
from saikei.search.race import RIVAL, Entry, Plan, Racer, RungResult
from saikei.search.student import FURTHER, STUDENT


@dataclass(frozen=True, eq=False)
class TrainedRecords:
    """Makes records of trained candidates.

    Args:
        context: Models, data and budget of the run.
        racers: All candidates that were trained, by name.
        full: Epochs that the learning rates of the race are planned for.
        load: Loads the model of a candidate by its name.
    """

    context: RunContext
    racers: Mapping[str, Racer] = field(repr=False)
    full: int
    load: Callable[[str], keras.Model]

    def stored(self, racer: Racer) -> Candidate:
        """The record of a candidate, stored with its model unless it is stored already.

        Args:
            racer: The candidate.
        """
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
        """The candidate that one differs from in a single choice: its weights, or its teacher.

        Of the networks with kept weights it is the one that was trained longest, and never longer
        than the fresh one.
        """
        if racer.plan.name in (STUDENT, FURTHER):
            return racer.plan.teacher
        if racer.plan.weights != "fresh":
            return None
        same = [
            r
            for r in self.racers.values()
            if r.plan.weights == "kept"
            and structure_key(r.plan) == structure_key(racer.plan)
            and r.epoch <= racer.epoch
        ]
        return max(same, key=lambda r: r.epoch).plan.name if same else None

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
            total=racer.epoch if _has_own_length(racer.plan) else self.full,
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
    return plan.name.startswith((RIVAL, STUDENT, FURTHER))


def structure_key(plan: Plan | Entry) -> str:
    """What structures share whose models differ in their weights alone."""
    text = json.dumps([plan.parent, to_jsonable([plan.recipe, plan.via])], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
