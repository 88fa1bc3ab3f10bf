"""The Pareto front: candidates that no other one beats in both metric and cost."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from saikei.budget import Budget
from saikei.runs.plausible import COST_AXES
from saikei.runs.record import Candidate, Cost
from saikei.scoring.score import Score


def cost_axis(budget: Budget) -> str:
    """The cost that the front trades against the metric: the first that the budget limits."""
    limited = budget.to_dict()
    return next(axis for axis in COST_AXES if axis in limited)


def cost_of(cost: Cost, axis: str) -> float:
    """One of a model's costs as a number.

    Args:
        cost: of a model; its latency must have been measured when that is the axis.
        axis: "macs", "params" or "latency".
    """
    return float(getattr(cost, axis))


def goodness(score: Score) -> float:
    """The metric, turned so that more is better."""
    return score.value if score.greater_is_better else -score.value


def pareto_front(candidates: Iterable[Candidate], axis: str) -> tuple[Candidate, ...]:
    """The candidates that are not dominated, cheapest first.

    One dominates another when it costs no more and scores no less, and is strictly better in
    one of the two. Of candidates equal in both, the first by name stays.

    Args:
        candidates: in any order.
        axis: "macs", "params" or "latency".
    """
    ordered: Sequence[Candidate] = sorted(
        candidates,
        key=lambda c: (cost_of(c.cost, axis), -goodness(c.validation), c.name),
    )
    front: list[Candidate] = []
    for candidate in ordered:
        if not front or goodness(candidate.validation) > goodness(front[-1].validation):
            front.append(candidate)
    return tuple(front)
