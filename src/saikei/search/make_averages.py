"""Averages as candidates: chosen on stored outputs, then built, profiled and scored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import keras

from saikei.fusion import Average
from saikei.runs.candidate import Candidate
from saikei.runs.record import Decision
from saikei.scoring.labelled import Outputs
from saikei.search.averages import AveragePlan, Sibling, choose_averages
from saikei.search.execute import RunContext
from saikei.search.gauge import cost_record


@dataclass(frozen=True)
class Averages:
    """The averages that keep the budget, their outputs on validation, and the decision."""

    candidates: tuple[Candidate, ...]
    outputs: Mapping[str, Outputs]
    decision: Decision


def make_averages(
    candidates: Sequence[Candidate], outputs: Mapping[str, Outputs], context: RunContext, seed: int
) -> Averages:
    """Average the candidates that fit the budget together.

    Args:
        candidates: All candidates so far.
        outputs: Outputs of each candidate on validation, by name.
        context: Models and budget of the run.
        seed: Seed of the folds for learned weights.
    """
    siblings = [Sibling(c.name, c.cost, outputs[c.name]) for c in candidates if c.fits]
    limits = context.budget.limits(context.whole)
    choice = choose_averages(siblings, context.judge, limits, seed)
    made: list[Candidate] = []
    stored: dict[str, Outputs] = {}
    for number, plan in enumerate(choice.plans, start=1):
        name = f"average-{number}"
        candidate = _finished_or_built(name, plan, context)
        if candidate.fits:
            made.append(candidate)
            stored[name] = context.folder.outputs(name)
    names = ", ".join(c.name for c in made) or "none"
    reason = (
        f"{choice.considered} sets of candidates fit the budget together; on their validation "
        f"outputs the best {len(choice.plans)} were built and profiled, and {len(made)} keep the "
        "budget. Learned weights are scored out of fold."
        if choice.considered
        else "No two candidates fit the budget together."
    )
    return Averages(tuple(made), stored, Decision("averages", names, reason))


def _finished_or_built(name: str, plan: AveragePlan, context: RunContext) -> Candidate:
    asked = {
        "members": list(plan.members),
        "weights": "learn" if plan.learned else "equal",
        "values": list(plan.weights),
    }
    known = context.folder.finished(name, asked)
    if known is not None:
        return known
    fusion = Average(weights=plan.weights if plan.learned else None)
    model = fusion([_member(member, context) for member in plan.members])
    outputs = plan.outputs if plan.learned else context.judge.predict(model)
    measured = context.gauge.profile(model)
    candidate = Candidate(
        name=name,
        kind="average",
        parent=None,
        plan=asked,
        recipe=None,
        members=plan.members,
        weights=plan.weights,
        fits=context.fits(measured),
        cost=cost_record(measured),
        before=None,
        validation=context.judge.score(outputs),
        training=None,
        layers=(),
    )
    context.folder.save(candidate, model, outputs)
    return candidate


def _member(name: str, context: RunContext) -> keras.Model:
    given = context.originals.get(name)
    return context.folder.model(name) if given is None else given
