"""What an average would lose if each member joined it, worked out for all of them at once.

The sum of the predictions that are in already is kept, so that a round costs one addition for
each number of each member, and for a log-loss only the probabilities of what happened count.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from saikei.fusion.objectives import Convex, Loss, Mixture, Squares
from saikei.fusion.simplex import Array

# A product of so many probabilities, each between Keras's epsilon and a few dozen, is a normal
# double; its logarithm stands for as many.
_BLOCK = 16


class Candidates(Protocol):
    """Members that may join an average."""

    def joined(self) -> Array:
        """For each member, what the average would lose with it, `(members,)`."""

    def take(self, member: int) -> None:
        """Let a member join."""


def candidates_of(loss: Loss, among: NDArray[np.int64]) -> Candidates:
    """The members that a loss is of.

    Args:
        loss: of an average.
        among: which of its members may join.
    """
    if isinstance(loss, Squares):
        return SquareCandidates(loss.residuals[:, among])
    if isinstance(loss, Mixture):
        return MixtureCandidates(loss.probabilities[:, among], loss.importance, loss.scale)
    return ConvexCandidates(loss, among)


class MixtureCandidates:
    """Log-loss: see `saikei.fusion.objectives.Mixture`."""

    def __init__(self, probabilities: Array, importance: Array, scale: float) -> None:
        rows, members = probabilities.shape
        self._equal = bool(np.all(importance == importance[0]))
        self._importance, self._scale = importance, scale
        # Rows of 1 fill the last block up; they take part in every sum as (s + 1) / (s + 1).
        padded = -(-rows // _BLOCK) * _BLOCK if self._equal else rows
        self._each = np.ones((members, padded))
        self._each[:, :rows] = probabilities.T
        self._sum = np.zeros(padded)
        self._next = np.empty_like(self._each)
        self._count, self._rows = 0, rows

    def joined(self) -> Array:
        """The log-loss of the average with each member."""
        size = self._count + 1
        np.add(self._each, self._sum, out=self._next)
        if not self._equal:
            np.log(self._next, out=self._next)
            logs = self._next @ self._importance
            return np.asarray(self._scale * (np.log(size) - logs))
        blocks = self._next.reshape(len(self._each), _BLOCK, -1)
        np.multiply(self._next, 1.0 / size, out=self._next)
        logs = np.log(np.multiply.reduce(blocks, axis=1)).sum(axis=1)
        return np.asarray(-self._scale * logs * float(self._importance[0]))

    def take(self, member: int) -> None:
        """Add what a member gave to what happened."""
        self._sum += self._each[member]
        self._count += 1


class SquareCandidates:
    """Squared error, by inner products of the members' residuals: no row is looked at again."""

    def __init__(self, residuals: Array) -> None:
        self._products = residuals.T @ residuals / len(residuals)
        self._with_sum = np.zeros(residuals.shape[1])
        self._square = 0.0
        self._count = 0

    def joined(self) -> Array:
        """The mean squared error of the average with each member."""
        own = np.diagonal(self._products)
        return np.asarray((self._square + 2 * self._with_sum + own) / (self._count + 1) ** 2)

    def take(self, member: int) -> None:
        """Add a member's residuals."""
        self._square += 2 * self._with_sum[member] + self._products[member, member]
        self._with_sum = self._with_sum + self._products[member]
        self._count += 1


class ConvexCandidates:
    """Any other loss, evaluated as it is."""

    def __init__(self, loss: Convex, among: NDArray[np.int64]) -> None:
        self._loss, self._among = loss, among
        self._counts = np.zeros(loss.members)

    def joined(self) -> Array:
        """The loss of the average with each member."""
        values = []
        for member in self._among:
            counts = self._counts.copy()
            counts[member] += 1
            values.append(self._loss.objective(counts / counts.sum())[0])
        return np.array(values)

    def take(self, member: int) -> None:
        """Count a member."""
        self._counts[self._among[member]] += 1


class AccuracyCandidates:
    """The share of samples whose most likely class is not the true one.

    Only by how much other classes lead over the true one counts, and in a round only samples
    that one more member can turn are looked at, which soon are few.

    Args:
        predictions: `(members, n, …, classes)`.
        labels: class numbers, or one row a sample with the largest at the true class.
    """

    def __init__(self, predictions: Array, labels: Array) -> None:
        classes = predictions.shape[-1]
        flat = predictions.reshape(len(predictions), -1, classes)
        dense = labels.size == flat.shape[1] * classes and classes > 1
        truth = labels.reshape(-1, classes).argmax(-1) if dense else labels.reshape(-1)
        truth = truth.astype(np.int64)
        self._rows = flat.shape[1]
        others = np.arange(classes - 1)[None] + (np.arange(classes - 1)[None] >= truth[:, None])
        rows = np.arange(self._rows)
        own = flat[:, rows, truth][:, :, None]
        lead = flat[:, rows[:, None], others] - own
        # Of equal ones the first class counts as the most likely: those before the true one win.
        self._wins_ties = (others < truth[:, None]).T.copy()
        # (other classes, members, rows): what is compared lies side by side.
        self._lead = np.ascontiguousarray(lead.transpose(2, 0, 1))
        self._least, self._most = self._lead.min(axis=1), self._lead.max(axis=1)
        self._sum = np.zeros((classes - 1, self._rows))

    def joined(self) -> Array:
        """The share of errors of the average with each member."""
        lost: Any = self._leads(self._sum + self._least, self._wins_ties).any(axis=0)
        open_ = np.flatnonzero(self._leads(self._sum + self._most, self._wins_ties).any(axis=0))
        open_ = open_[~lost[open_]]
        total = self._lead[:, :, open_] + self._sum[:, None, open_]
        turned: Any = self._leads(total, self._wins_ties[:, None, open_]).any(axis=0)
        return np.asarray((lost.sum() + turned.sum(axis=1)) / self._rows)

    def take(self, member: int) -> None:
        """Add the leads of a member."""
        self._sum += self._lead[:, member]

    @staticmethod
    def _leads(values: Array, wins_ties: NDArray[np.bool_]) -> np.ndarray[Any, Any]:
        return np.asarray((values > 0) | ((values == 0) & wins_ties))
