"""Confidence, correctness and cost of each stage of a cascade, row by row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from saikei.batches import Array
from saikei.models import Exits


@dataclass(frozen=True, eq=False)
class StageTable:
    """Confidence, correctness and cost of each stage on each row.

    Args:
        confidences: The confidence at each stage but the last, float32 `(n, stages - 1)`.
        right: Whether the stage's output is right, `(n, stages)`.
        last_right: Whether the last member alone is right, `(n,)`.
        costs: The cost of the members up to each stage, in units of the last member's,
            `(stages,)`.
        given: How much each row counts, above 0 and at most 1, `(n,)`; `None` where all rows count
            1.
    """

    confidences: Array
    right: Array
    last_right: Array
    costs: Array
    given: Array | None = None

    def __len__(self) -> int:
        return len(self.right)

    def take(self, rows: Any) -> StageTable:
        """Some of the rows."""
        given = None if self.given is None else self.given[rows]
        return StageTable(
            self.confidences[rows], self.right[rows], self.last_right[rows], self.costs, given
        )

    @property
    def counts(self) -> Array:
        """How much each row counts, above 0 and at most 1, `(n,)`."""
        return np.ones(len(self)) if self.given is None else self.given

    def mean(self, each: Array) -> float:
        """The mean of one number a row, `(n,)`, weighted by how much the rows count."""
        return float(np.average(each, weights=self.given))

    def stages(self, thresholds: Sequence[float]) -> Array:
        """The stage at which each row leaves, `(n,)`."""
        return stages_of(self.confidences, thresholds)

    def rights(self, thresholds: Sequence[float]) -> Array:
        """Whether the cascade with these thresholds is right, booleans `(n,)`."""
        return np.asarray(self.right[np.arange(len(self)), self.stages(thresholds)])

    def spent(self, thresholds: Sequence[float]) -> Array:
        """The cost of each row with these thresholds, `(n,)`."""
        return np.asarray(self.costs[self.stages(thresholds)])


def stages_of(confidences: Array, thresholds: Sequence[float]) -> Array:
    """The stage at which each row leaves, `(n,)`.

    Args:
        confidences: The confidence at each stage but the last, `(n, stages - 1)`.
        thresholds: One for each stage but the last.
    """
    leaves = confidences >= np.asarray(thresholds, dtype=confidences.dtype)
    last = np.ones((len(confidences), 1), dtype=bool)
    return np.asarray(np.concatenate([leaves, last], axis=1).argmax(axis=1))


def stage_confidences(exits: Exits, outputs: Sequence[Array]) -> Array:
    """The confidences at each stage but the last, `(n, stages - 1)`.

    Args:
        exits: How confidence is measured; the thresholds are not used.
        outputs: One array for each member, `(n, …)`.
    """
    return np.stack(
        [exits.confidences(outputs[:count]) for count in range(1, len(outputs))], axis=1
    )
