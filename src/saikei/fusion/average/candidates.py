"""The loss of an average if one more member joined it, computed for all members at once.

The sum of the predictions that are in already is kept, so that a round costs one product of a
matrix and a vector, and a log-loss needs only the probabilities of the true labels.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from saikei.fusion.average.objectives import Convex, Loss, Mixture, Squares
from saikei.fusion.average.simplex import Array
from saikei.scoring.labels import as_labels

# A loss that is certainly more than this above the least need not be exact.
MARGIN = 1e-5


class Candidates(Protocol):
    """Members that may join an average."""

    def joined(self, members: NDArray[np.int64] | None = None) -> Array:
        """The loss of the average with each member, one value for each.

        Args:
            members: Indices of members; `None` for all. Of all, a value more than `MARGIN` above
                the least may be lower than the true one, if the true one is so too.
        """

    def take(self, member: int) -> None:
        """Let a member join."""


def candidates_of(loss: Loss, among: NDArray[np.int64]) -> Candidates:
    """The candidates for an average of a loss.

    Args:
        loss: The loss of an average as a function of its weights.
        among: The indices of the members that may join, ascending.
    """
    if isinstance(loss, Squares):
        return SquareCandidates(loss.residuals[:, among])
    if isinstance(loss, Mixture):
        every = len(among) == loss.probabilities.shape[1]
        chosen = loss.probabilities if every else loss.probabilities[:, among]
        return MixtureCandidates(chosen, loss.importance, loss.scale)
    return ConvexCandidates(loss, among)


class MixtureCandidates:
    """Log-loss: see `saikei.fusion.average.objectives.Mixture`.

    It is convex, so its tangent at the average so far, one product of a matrix and a vector, bounds
    the loss with each member from below; only members whose bound is low enough to win are
    computed. The longer the selection lasts, the shorter the step and the closer the bound.
    """

    def __init__(self, probabilities: Array, importance: Array, scale: float) -> None:
        self._each = np.ascontiguousarray(probabilities.T, dtype=np.float64)
        self._importance = scale * importance
        self._total, self._count = float(self._importance.sum()), 0
        self._sum, self._next = np.zeros(len(importance)), np.empty(len(importance))

    def joined(self, members: NDArray[np.int64] | None = None) -> Array:
        """The log-loss of the average with each member."""
        if members is not None:
            return np.array([self._with(member) for member in members])
        if not self._count:
            return np.array([self._with(member) for member in range(len(self._each))])
        # f((s·m + p) / (s + 1)) is at least f(m) + f'(m)·(p - m) / (s + 1).
        # BLAS would wake threads for a product this small, and wait for them on a busy machine.
        ratios = np.einsum("mn,n->m", self._each, self._importance / self._sum) * self._count
        now = self._loss(self._sum, self._count)
        values = now + (self._total - ratios) / (self._count + 1)
        least = np.inf
        for member in np.argsort(values, kind="stable"):
            if values[member] > least + MARGIN:
                break
            values[member] = self._with(int(member))
            least = min(least, float(values[member]))
        return np.asarray(values)

    def _with(self, member: int) -> float:
        np.add(self._sum, self._each[member], out=self._next)
        return self._loss(self._next, self._count + 1)

    def _loss(self, total: Array, count: int) -> float:
        """The loss of a mean, from its sum."""
        return self._total * float(np.log(count)) - float(np.log(total) @ self._importance)

    def take(self, member: int) -> None:
        """Add a member's probabilities of the true labels."""
        self._sum += self._each[member]
        self._count += 1


class SquareCandidates:
    """Squared error, by inner products of the members' residuals, without the rows."""

    def __init__(self, residuals: Array) -> None:
        self._products = residuals.T @ residuals / len(residuals)
        self._with_sum = np.zeros(residuals.shape[1])
        self._square = 0.0
        self._count = 0

    def joined(self, members: NDArray[np.int64] | None = None) -> Array:
        """The mean squared error of the average with each member."""
        own = np.diagonal(self._products)
        every = (self._square + 2 * self._with_sum + own) / (self._count + 1) ** 2
        return np.asarray(every if members is None else every[members])

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

    def joined(self, members: NDArray[np.int64] | None = None) -> Array:
        """The loss of the average with each member."""
        values = []
        for member in self._among if members is None else self._among[members]:
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
        labels: Class numbers, or one row a sample with the largest at the true class; with what
            counts of them.
    """

    def __init__(self, predictions: Array, labels: Any) -> None:
        classes = predictions.shape[-1]
        flat = predictions.reshape(len(predictions), -1, classes)
        known = as_labels(labels)
        y = known.values
        dense = y.size == flat.shape[1] * classes and classes > 1
        truth = y.reshape(-1, classes).argmax(-1) if dense else y.reshape(-1)
        truth = truth.astype(np.int64)
        self._counts = known.over(predictions.shape[1:-1]).reshape(-1)
        if not known.known:
            flat, truth = flat[:, self._counts > 0], truth[self._counts > 0]
            self._counts = self._counts[self._counts > 0]
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

    def joined(self, members: NDArray[np.int64] | None = None) -> Array:
        """The share of errors of the average with each member."""
        lost: Any = self._leads(self._sum + self._least, self._wins_ties).any(axis=0)
        open_ = np.flatnonzero(self._leads(self._sum + self._most, self._wins_ties).any(axis=0))
        open_ = open_[~lost[open_]]
        total = self._lead[:, :, open_] + self._sum[:, None, open_]
        turned: Any = self._leads(total, self._wins_ties[:, None, open_]).any(axis=0)
        counts = self._counts
        every = (counts[lost].sum() + turned @ counts[open_]) / counts.sum()
        return np.asarray(every if members is None else every[members])

    def take(self, member: int) -> None:
        """Add the leads of a member."""
        self._sum += self._lead[:, member]

    @staticmethod
    def _leads(values: Array, wins_ties: NDArray[np.bool_]) -> np.ndarray[Any, Any]:
        return np.asarray((values > 0) | ((values == 0) & wins_ties))
