"""The thresholds of a cascade that are worth choosing, and the goal that decides among them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from saikei.batches import Array
from saikei.fusion.cascade.stage_table import StageTable
from saikei.models.exits import NEVER

# All combinations of candidates are tried; this many at most.
_COMBINATIONS = 1 << 18


@dataclass(frozen=True)
class Policy:
    """Thresholds, with their accuracy and cost on the rows that they were chosen by.

    Args:
        thresholds: One for each stage but the last.
        accuracy: The share of rows that are right.
        cost: The mean cost of a row, in units of the last member's.
    """

    thresholds: tuple[float, ...]
    accuracy: float
    cost: float


def front(table: StageTable) -> list[Policy]:
    """The Pareto front of accuracy and mean cost, from the cheapest policy on.

    All stages are searched jointly. The candidates of a stage are between the confidences that
    occur there: all of them for two members, evenly spaced ranks for more (511 a stage for three
    members, 64 for four). All combinations are scored at once: the right rows that leave at a
    stage are a histogram of the rows over the candidates, summed up along each axis.
    """
    stages = table.confidences.shape[1]
    each = max(3, int(_COMBINATIONS ** (1 / stages)))
    candidates = [_candidates(table.confidences[:, stage], each) for stage in range(stages)]
    passed = [
        np.searchsorted(values, table.confidences[:, stage], side="right")
        for stage, values in enumerate(candidates)
    ]
    sizes = [len(values) for values in candidates]
    rights = np.zeros(sizes)
    costs = np.zeros(sizes)
    for stage in range(stages + 1):
        upto, last = passed[: stage + 1], stage == stages
        rights += _leaving(upto, sizes, table.right[:, stage] * table.counts, last)
        costs += _leaving(upto, sizes, table.counts * table.costs[stage], last)
    total = table.counts.sum()
    return _undominated(candidates, rights / total, costs / total)


def _candidates(confidences: Array, most: int) -> Array:
    """Thresholds that divide the confidences differently, ascending; at the last no row leaves."""
    values = np.unique(confidences)
    low, high = values[:-1], values[1:]
    middle = low + (high - low) / 2
    # Where there is no number between, the upper one itself keeps the lower out.
    between = np.where(middle > low, middle, high)
    if len(between) > most - 2:
        ranks = np.linspace(0, len(between) - 1, most - 2).round().astype(int)
        between = between[np.unique(ranks)]
    ends = np.array([0.0, NEVER], dtype=confidences.dtype)
    return np.concatenate([ends[:1], between, ends[1:]])


def _leaving(passed: list[Array], sizes: list[int], values: Array, last: bool) -> Array:
    """The sum of values over the rows that leave at a stage, for every choice of thresholds.

    A row has passed the first `passed` candidates of a stage: it leaves there if the chosen one
    is among them, and goes on otherwise.

    Args:
        passed: For each stage up to this one, how many candidates each row passes, int `(n,)`.
        sizes: The number of candidates at each stage.
        values: What is summed, `(n,)`.
        last: Whether this is the last stage, where all remaining rows leave.
    """
    shape = [size + 1 for size in sizes[: len(passed)]]
    flat = np.ravel_multi_index(passed, shape)
    sums = np.bincount(flat, weights=values, minlength=int(np.prod(shape))).reshape(shape)
    for axis in range(len(passed)):
        sums = sums.cumsum(axis=axis)
        total = np.take(sums, [-1], axis=axis)
        gone_on = np.take(sums, range(shape[axis] - 1), axis=axis)
        sums = total - gone_on if axis == len(passed) - 1 and not last else gone_on
    return sums.reshape(sums.shape + (1,) * (len(sizes) - sums.ndim))


def _undominated(candidates: list[Array], accuracies: Array, costs: Array) -> list[Policy]:
    order = np.lexsort((-accuracies.ravel(), costs.ravel()))
    best = np.maximum.accumulate(accuracies.ravel()[order])
    better = np.concatenate([[True], best[1:] > best[:-1]])
    found = []
    for index in order[better]:
        where = np.unravel_index(index, accuracies.shape)
        chosen = tuple(float(values[at]) for values, at in zip(candidates, where, strict=True))
        found.append(Policy(chosen, float(accuracies.flat[index]), float(costs.flat[index])))
    return found


@dataclass(frozen=True)
class Goal:
    """A bound on accuracy from below, or on the mean cost from above.

    Args:
        kind: `"share"` of the last member's accuracy, `"accuracy"`, or `"cost"` in units of the
            last member's.
        bound: The accuracy or the cost that must be kept.
    """

    kind: Literal["share", "accuracy", "cost"]
    bound: float

    def margins(self, policy: Policy, table: StageTable) -> np.ndarray:
        """By how much each row is on the right side of the goal, times how much it counts, `(n,)`.

        The goal is kept where their mean is 0 or more.
        """
        return self._row_margins(policy, table) * table.counts

    def _row_margins(self, policy: Policy, table: StageTable) -> np.ndarray:
        if self.kind == "cost":
            return np.asarray(self.bound - table.spent(policy.thresholds))
        rights = table.rights(policy.thresholds).astype(float)
        if self.kind == "accuracy":
            return np.asarray(rights - self.bound)
        return np.asarray(rights - self.bound * table.last_right)

    def lowest(self, table: StageTable) -> float:
        """The lowest margin that a row can have."""
        if self.kind == "cost":
            return min(self.bound - float(table.costs[-1]), -1e-9)
        return -self.bound

    def path(self, policies: list[Policy]) -> list[Policy]:
        """The policies, the safest first: the most expensive, or the cheapest to keep a cost."""
        return policies if self.kind == "cost" else policies[::-1]

    def met(self, path: list[Policy], table: StageTable) -> Policy | None:
        """The last policy of a path that keeps the goal on these rows, without a guarantee."""
        kept = None
        for policy in path:
            # Rounding of the mean over many rows is no miss.
            if self.margins(policy, table).mean() >= -1e-12:
                kept = policy
        return kept

    def __str__(self) -> str:
        if self.kind == "cost":
            return f"a mean cost of {self.bound:g} of the last member's"
        if self.kind == "accuracy":
            return f"an accuracy of {self.bound:g}"
        return f"{self.bound:g} of the last member's accuracy"
