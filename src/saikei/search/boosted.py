"""A boosted series as a candidate: it is trained as a whole, without rungs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras

from saikei.codec import to_jsonable
from saikei.executors import TaskFailure
from saikei.runs.candidate import Candidate
from saikei.runs.record import Decision, EffortRecord
from saikei.search.compose import Member, TrainedEnsemble, trained_ensembles
from saikei.search.context import RunContext

BOOST = "boost"


@dataclass(frozen=True)
class BoostedCandidates:
    """The boosted series of a run.

    Args:
        candidates: Their records.
        decisions: Why there is none.
        effort: The epochs of their trainings.
    """

    candidates: tuple[Candidate, ...] = ()
    decisions: tuple[Decision, ...] = ()
    effort: tuple[EffortRecord, ...] = ()


@dataclass(frozen=True)
class _Shared:
    """What a series is trained from; it is picklable."""

    models: Mapping[str, keras.Model] = field(repr=False)
    train: Any = field(repr=False)


def boost_candidates(
    members: Sequence[Member], context: RunContext, load: Callable[[str], keras.Model], epochs: int
) -> BoostedCandidates:
    """Train a boosted series that fits the budget, and store it.

    Its rounds see training data alone, so that its score on validation is that of unseen rows.

    Args:
        members: Trained candidates and given models.
        context: Models, data and budget of the run.
        load: Loads a candidate by its name.
        epochs: How many epochs may be spent, all rounds together.
    """
    found = trained_ensembles(
        members, context.judge, context.budget, context.whole, epochs, (BOOST,), context.seed
    )
    if not found:
        reason = "No candidate of one output takes half of the budget or less."
        return BoostedCandidates(decisions=(Decision(BOOST, "not possible", reason),))
    ensemble = found[0]
    effort = (EffortRecord(BOOST, ensemble.epochs, 1, ensemble.epochs),)
    name, plan = f"{BOOST}-1", _plan(ensemble)
    known = context.folder.finished(name, plan)
    if known is not None:
        return BoostedCandidates((known,), effort=effort)
    shared = _Shared({one: load(one) for one in ensemble.members}, context.train)
    (model,) = context.executor.run(_trained, shared, [ensemble], lambda *_: None)
    if isinstance(model, TaskFailure):
        return BoostedCandidates((), (Decision(BOOST, "left out", model.reason),), effort)
    outputs, cost = context.judge.predict(model), context.gauge.cost(model)
    candidate = Candidate(
        name=name,
        kind="fused",
        family=BOOST,
        parent=None,
        plan=plan,
        recipe=None,
        members=ensemble.members,
        weights=(),
        fits=context.fits(cost),
        cost=cost,
        before=None,
        validation=context.judge.score(outputs),
        training=None,
        layers=(),
    )
    context.folder.save(candidate, model, outputs)
    return BoostedCandidates((candidate,), effort=effort)


def _trained(shared: _Shared, ensemble: TrainedEnsemble) -> keras.Model:
    return ensemble.train(shared.models.__getitem__, shared.train)


def _plan(ensemble: TrainedEnsemble) -> dict[str, Any]:
    arguments = ensemble.fusion.to_dict()
    made: dict[str, Any] = to_jsonable(
        {
            "fusion": type(ensemble.fusion).__name__,
            "arguments": arguments,
            "members": list(ensemble.members),
            "models": arguments["rounds"],
            "complexity": arguments["rounds"],
        }
    )
    return made
