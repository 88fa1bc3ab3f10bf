"""The Pareto front: candidates that no other one beats in both metric and cost."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from saikei.budget import Budget
from saikei.runs.candidate import COST_AXES, Candidate
from saikei.scoring.score import Score


def cost_axis(budget: Budget) -> str:
    """The cost that the front compares with the metric: the first that the budget limits."""
    limited = budget.given()
    return next(axis for axis in COST_AXES if axis in limited)


def goodness(score: Score) -> float:
    """The metric, with its sign changed if smaller is better, so that more is always better."""
    return score.value if score.greater_is_better else -score.value


def pareto_front(candidates: Iterable[Candidate], axis: str) -> tuple[Candidate, ...]:
    """The candidates that are not dominated, cheapest first.

    One dominates another if it costs no more and scores no less, and is strictly better in
    one of the two. Of candidates that are equal in both, the first by name is kept.

    Args:
        candidates: Candidates in any order.
        axis: One of `COST_AXES`.
    """
    ordered: Sequence[Candidate] = sorted(
        candidates, key=lambda c: (c.cost.on(axis), -goodness(c.validation), c.name)
    )
    front: list[Candidate] = []
    for candidate in ordered:
        if not front or goodness(candidate.validation) > goodness(front[-1].validation):
            front.append(candidate)
    return tuple(front)
