"""Which candidate to ship: of what validation cannot tell apart, the simplest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from saikei.errors import WorkError
from saikei.runs import numbers
from saikei.runs.candidate import Candidate
from saikei.runs.front import goodness
from saikei.runs.record import Decision
from saikei.scoring.labelled import Labelled, Outputs
from saikei.scoring.score import Difference


@dataclass(frozen=True)
class FinalChoice:
    """The candidate to ship, and the decision in words."""

    chosen: Candidate
    decision: Decision


def choose_candidate(
    candidates: Sequence[Candidate], outputs: Mapping[str, Outputs], judge: Labelled, axis: str
) -> FinalChoice:
    """The simplest candidate within one standard error of the best.

    The standard error is that of the paired difference to the best on the same samples. Simpler
    is: a single model before an average, fewer members before more, equal weights before learned
    ones, and then the cheaper one.

    Args:
        candidates: all; those that do not keep the budget are left out.
        outputs: of each, on the judge's samples.
        judge: of the validation data.
        axis: the cost that counts: "macs", "params" or "latency".

    Raises:
        WorkError: when no candidate keeps the budget.
    """
    fitting = [c for c in candidates if c.fits]
    if not fitting:
        raise WorkError(
            "No candidate keeps the budget: each training diverged, or a latency limit was met "
            "when planned and missed when measured. Check the data, or raise the limit."
        )
    best = max(fitting, key=lambda c: (goodness(c.validation), -c.validation.loss, c.name))
    behind = {
        c.name: _behind(judge.difference(outputs[best.name], outputs[c.name]), c) for c in fitting
    }
    near = [c for c in fitting if behind[c.name].value <= behind[c.name].standard_error]
    chosen = min(near, key=lambda c: _complexity(c, axis))
    reason = _reason(chosen, best, behind[chosen.name], len(near), len(fitting), axis)
    return FinalChoice(chosen, Decision("what to ship", chosen.name, reason))


def _behind(difference: Difference, candidate: Candidate) -> Difference:
    """How far a candidate is behind the best, turned so that more is worse."""
    if candidate.validation.greater_is_better:
        return difference
    return Difference(-difference.value, -difference.high, -difference.low)


def _complexity(candidate: Candidate, axis: str) -> tuple[int, bool, float, float, str]:
    return (
        max(1, len(candidate.members)),
        candidate.plan.get("weights") == "learn",
        candidate.cost.on(axis),
        -goodness(candidate.validation),
        candidate.name,
    )


def _reason(
    chosen: Candidate, best: Candidate, behind: Difference, near: int, fitting: int, axis: str
) -> str:
    metric = chosen.validation.name.replace("_", " ")
    amount = partial(numbers.amount, chosen.validation.name)
    lead = f"Of {fitting} candidates that keep the budget, {best.name} has the best {metric}"
    if chosen.name == best.name:
        others = {1: ", and no other", 2: "; the one other"}.get(
            near, f"; none of the {near - 1} others"
        )
        verb = "is no simpler" if near == 2 else "is simpler"
        return f"{lead} on validation{others} within one standard error {verb}."
    return (
        f"{lead} on validation, but {chosen.name} is behind by {amount(behind.value)}, and one "
        f"standard error of that difference is {amount(behind.standard_error)}: the data cannot "
        f"tell the two apart, and {chosen.name} is the simplest of the {near} within one standard "
        f"error ({_simpler(chosen, best, axis)})."
    )


def _simpler(chosen: Candidate, best: Candidate, axis: str) -> str:
    if len(chosen.members) != len(best.members):
        members = len(chosen.members)
        ours = f"an average of {members}" if members else "a single model"
        return f"{ours}, not an average of {len(best.members)}" if best.members else ours
    share = chosen.cost.on(axis) / best.cost.on(axis)
    if share < 1:
        return f"{100 * share:.0f} % of its {axis}"
    return "equal weights, not learned ones" if best.members else f"no more {axis}"
