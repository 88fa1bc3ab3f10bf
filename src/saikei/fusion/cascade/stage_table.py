"""Rows on which the exits of a cascade are tried out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from saikei.batches import Array
from saikei.models import Exits


@dataclass(frozen=True, eq=False)
class Trial:
    """What every stage of a cascade would say of each row, and what it has cost by then.

    Args:
        sure: confidences at each stage but the last, float32 `(n, stages - 1)`.
        right: whether what the stage says is right, `(n, stages)`.
        last_right: whether what the last member says alone is, `(n,)`.
        costs: of running the members up to each stage, in units of the last member's `(stages,)`.
        given: how much each row counts, above 0 and at most 1, `(n,)`; `None` for all the same.
    """

    sure: Array
    right: Array
    last_right: Array
    costs: Array
    given: Array | None = None

    def __len__(self) -> int:
        return len(self.right)

    def take(self, rows: Any) -> Trial:
        """Some of the rows."""
        given = None if self.given is None else self.given[rows]
        return Trial(self.sure[rows], self.right[rows], self.last_right[rows], self.costs, given)

    @property
    def counts(self) -> Array:
        """How much each row counts, above 0 and at most 1, `(n,)`."""
        return np.ones(len(self)) if self.given is None else self.given

    def mean(self, each: Array) -> float:
        """The mean of a number of each row, as much as it counts."""
        return float(np.average(each, weights=self.given))

    def stages(self, thresholds: Sequence[float]) -> Array:
        """The stage at which each row leaves, `(n,)`."""
        return stages_of(self.sure, thresholds)

    def rights(self, thresholds: Sequence[float]) -> Array:
        """Whether the cascade is right, booleans `(n,)`."""
        return np.asarray(self.right[np.arange(len(self)), self.stages(thresholds)])

    def spent(self, thresholds: Sequence[float]) -> Array:
        """What each row costs, `(n,)`."""
        return np.asarray(self.costs[self.stages(thresholds)])


def stages_of(sure: Array, thresholds: Sequence[float]) -> Array:
    """The stage at which each row leaves, `(n,)`.

    Args:
        sure: confidences at each stage but the last, `(n, stages - 1)`.
        thresholds: of each stage but the last.
    """
    leaves = sure >= np.asarray(thresholds, dtype=sure.dtype)
    last = np.ones((len(sure), 1), dtype=bool)
    return np.asarray(np.concatenate([leaves, last], axis=1).argmax(axis=1))


def confidences(exits: Exits, outputs: Sequence[Array]) -> Array:
    """The confidences at each stage but the last, `(n, stages - 1)`.

    Args:
        exits: their thresholds are not looked at.
        outputs: of each member, on all rows.
    """
    return np.stack([exits.sure(outputs[:count]) for count in range(1, len(outputs))], axis=1)
