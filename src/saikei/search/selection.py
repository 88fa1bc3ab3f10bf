"""Choose the candidate to ship: the simplest of those that validation cannot distinguish.

The budget is what costs may be, so within it the better of two equally simple ones is chosen, and
the cheapest is named beside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from saikei.errors import WorkError
from saikei.runs import numbers
from saikei.runs.candidate import Candidate
from saikei.runs.front import goodness
from saikei.runs.record import WHAT_TO_SHIP, Decision
from saikei.scoring.labelled import Labelled, Outputs
from saikei.scoring.score import Difference
from saikei.search.compose.ensembles import LUCK

# A latency counts as worse when it is this many times that of the original, and longer by more
# milliseconds than measured times differ by chance on a busy machine: the same run has to choose
# the same model each time.
_SLOWER = 1.5
_MILLISECONDS = 20.0
_MORE_MEMORY = 1.05
# A candidate with at most this share of the costs of the chosen one is mentioned beside it.
_WORTH_KNOWING = 0.8


@dataclass(frozen=True)
class FinalChoice:
    """The candidate to ship, and the decision with its reason."""

    chosen: Candidate
    decision: Decision


def choose_candidate(
    candidates: Sequence[Candidate],
    outputs: Mapping[str, Outputs],
    judge: Labelled,
    axis: str,
    baseline: Candidate | None = None,
) -> FinalChoice:
    """The best of the simplest candidates within one standard error of the best of all.

    The standard error is that of the paired difference to the best on the same samples. Fewer
    models that run are simpler than more, fewer fitted numbers simpler than more (equal weights
    than learned ones, these than a stack). Of those that are equally simple the best is taken, by
    the metric and then by the loss: all of them keep the budget, which is what costs may be, so a
    lower cost decides only between equals. One that is clearly slower than the original, or needs
    more memory, is taken only where no other is as good. A fused model takes part where it is ahead
    of the best single model by more than luck, `LUCK` standard errors: the best of many fused
    models is ahead by one by chance alone.

    Args:
        candidates: All candidates; those that do not keep the budget are left out.
        outputs: Outputs of each candidate on the judge's samples, by name.
        judge: Scores outputs on the validation data.
        axis: The cost to compare, such as "macs".
        baseline: The original; `None` to ignore whether other costs became worse.

    Raises:
        WorkError: If no candidate keeps the budget.
    """
    fitting = [c for c in candidates if c.fits]
    if not fitting:
        raise WorkError(_none_fits(candidates, axis))
    fitting = _without_luck(fitting, outputs, judge)
    best = min(fitting, key=lambda c: (*_badness(c), *_order(c, axis)))
    behind = {
        c.name: _behind(judge.difference(outputs[best.name], outputs[c.name]), c) for c in fitting
    }
    near = [c for c in fitting if behind[c.name].value <= behind[c.name].standard_error]
    harmless = [c for c in near if baseline is None or not worsened(c, baseline)]
    chosen = min(harmless or near, key=lambda c: _order(c, axis))
    reason = _reason(chosen, best, behind[chosen.name], len(near), len(fitting))
    reason += _cheaper(chosen, near, behind, axis)
    return FinalChoice(chosen, Decision(WHAT_TO_SHIP, chosen.name, reason))


def _none_fits(candidates: Sequence[Candidate], axis: str) -> str:
    """Why nothing can be shipped."""
    made = [c for c in candidates if c.kind not in ("original", "given")]
    if not made:
        return (
            "No candidate keeps the budget: every training diverged. Check the data, or give a "
            "lower settings={'learning_rate': …}."
        )
    least = min(made, key=lambda c: c.cost.on(axis))
    return (
        f"No candidate keeps the budget: the smallest that was trained, '{least.name}', has "
        f"{least.cost.on(axis):,.4g} {axis}. Raise the limit, or the effort, so that more "
        "structures are trained."
    )


def worsened(candidate: Candidate, baseline: Candidate) -> tuple[str, ...]:
    """The costs that are clearly worse than those of the original: latency, memory.

    Args:
        candidate: A candidate.
        baseline: The original.
    """
    ours, theirs = candidate.cost, baseline.cost
    found = []
    if ours.latency is not None and theirs.latency is not None:
        longer = ours.latency - theirs.latency
        if ours.latency > _SLOWER * theirs.latency and longer > _MILLISECONDS:
            found.append("latency")
    if ours.memory > _MORE_MEMORY * theirs.memory:
        found.append("memory")
    return tuple(found)


def harm(candidate: Candidate, baseline: Candidate) -> tuple[Decision, ...]:
    """The first line of the report: which costs the chosen candidate has made worse, if any.

    Args:
        candidate: The candidate to ship.
        baseline: The original.
    """
    axes = worsened(candidate, baseline)
    if not axes:
        return ()
    each = [
        f"{numbers.COSTS[axis]} {numbers.cost(candidate.cost, axis)} and not "
        f"{numbers.cost(baseline.cost, axis)}"
        for axis in axes
    ]
    reason = (
        f"The original is better in this: {candidate.name} has {', '.join(each)}, and no candidate "
        f"that is as good has less. Limit it too, such as Budget({axes[0]}=1.0)."
    )
    return (Decision("costs that became worse", " and ".join(axes), reason),)


def _without_luck(
    fitting: Sequence[Candidate], outputs: Mapping[str, Outputs], judge: Labelled
) -> list[Candidate]:
    """The candidates without fused models that may be ahead of the best single one by chance."""
    singles = [c for c in fitting if models_run(c) == 1]
    if not singles:
        return list(fitting)
    best = min(singles, key=lambda c: (*_badness(c), c.name))
    gaps = {
        c.name: _behind(judge.difference(outputs[c.name], outputs[best.name]), c)
        for c in fitting
        if models_run(c) > 1
    }
    return [
        c
        for c in fitting
        if c.name not in gaps or gaps[c.name].value > LUCK * gaps[c.name].standard_error
    ]


def _badness(candidate: Candidate) -> tuple[float, float]:
    return -goodness(candidate.validation), candidate.validation.loss


def _behind(difference: Difference, candidate: Candidate) -> Difference:
    """How much worse than the best a candidate is, as a positive difference."""
    if candidate.validation.greater_is_better:
        return difference
    return Difference(-difference.value, -difference.high, -difference.low)


def models_run(candidate: Candidate) -> int:
    """How many models run in a candidate: a soup is one, as it has one set of weights."""
    if candidate.family == "soup":
        return 1
    # A boosted series has trained further members itself.
    return max(1, len(candidate.members), int(candidate.plan.get("models", 1)))


def _order(candidate: Candidate, axis: str) -> tuple[int, int, float, bool, float, float, str]:
    """The first in this order is shipped."""
    return (
        models_run(candidate),
        int(candidate.plan.get("complexity", 0)),
        -goodness(candidate.validation),
        # What was given needs no change.
        candidate.kind != "given",
        candidate.validation.loss,
        candidate.cost.on(axis),
        candidate.name,
    )


def _reason(chosen: Candidate, best: Candidate, behind: Difference, near: int, fitting: int) -> str:
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
        f"distinguish the two, and {chosen.name} is the simplest of the {near} within one standard "
        f"error ({_simpler(chosen, best)})."
    )


def _simpler(chosen: Candidate, best: Candidate) -> str:
    ours, theirs = models_run(chosen), models_run(best)
    if ours != theirs:
        return f"{ours} model{'s' if ours > 1 else ''} run in it, not {theirs}"
    if chosen.plan.get("complexity", 0) != best.plan.get("complexity", 0):
        fewer = chosen.family if chosen.kind == "fused" else "a single model"
        return f"{fewer}, which fits fewer numbers than {best.family}"
    if chosen.kind == "given":
        return "what was given needs no change"
    return f"{best.name} is slower than the original, or needs more memory"


def _cheaper(
    chosen: Candidate, near: Sequence[Candidate], behind: Mapping[str, Difference], axis: str
) -> str:
    """A sentence about the cheapest of those that validation cannot distinguish, if it is cheaper.

    Costs within the budget do not decide, but they are worth knowing.
    """
    least = min(near, key=lambda c: c.cost.on(axis))
    share = least.cost.on(axis) / max(chosen.cost.on(axis), 1e-12)
    if share > _WORTH_KNOWING:
        return ""
    metric = chosen.validation.name
    return (
        f" {least.name} has {100 * share:.0f} % of its {numbers.COSTS[axis]} and is behind the "
        f"best by {numbers.amount(metric, behind[least.name].value)}."
    )
