"""Ridge least squares from normal equations, shrunk towards weights that are there already.

With the weights W₀ at hand and the residuals R = Y - X W₀, the change Δ minimises
‖XΔ - R‖² + λ‖Δ‖², so (XᵀX + λI) Δ = XᵀR: a direction in which the samples do not vary keeps
its old weight, and the fit is never worse on the samples than W₀ is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import LinAlgError, cho_factor, cho_solve

Matrix = NDArray[np.float64]

# λ relative to the mean of the diagonal of XᵀX.
RIDGES = (1e-9, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)


@dataclass
class NormalEquations:
    """Sums over rows, for several independent systems of one shape.

    The last feature is the constant 1, so that sums and means are among the products.

    Args:
        gram: XᵀX, `(systems, features + 1, features + 1)`.
        cross: XᵀR, `(systems, features + 1, outputs)`.
        square: The squared norm ‖R‖².
        target: ‖Y - mean‖² or any scale to judge ‖R‖² by.
        rows: The number of rows.
    """

    gram: Matrix
    cross: Matrix
    square: float = 0.0
    rows: int = 0

    @classmethod
    def empty(cls, systems: int, features: int, outputs: int) -> NormalEquations:
        """Sums over no rows."""
        size = features + 1
        return cls(np.zeros((systems, size, size)), np.zeros((systems, size, outputs)))

    def add(self, features: Matrix, residuals: Matrix) -> None:
        """Add rows.

        Args:
            features: `(systems, rows, features)`.
            residuals: `(systems, rows, outputs)`.
        """
        size = features.shape[-1]
        transposed = features.swapaxes(-1, -2)
        self.gram[:, :size, :size] += transposed @ features
        sums = features.sum(axis=1)
        self.gram[:, :size, size] += sums
        self.gram[:, size, :size] += sums
        self.gram[:, size, size] += features.shape[1]
        self.cross[:, :size] += transposed @ residuals
        self.cross[:, size] += residuals.sum(axis=1)
        self.square += float(np.square(residuals).sum())
        self.rows += features.shape[1]

    def plus(self, other: NormalEquations) -> NormalEquations:
        """Sums over the rows of both."""
        return NormalEquations(
            self.gram + other.gram,
            self.cross + other.cross,
            self.square + other.square,
            self.rows + other.rows,
        )

    def error(self, change: Matrix) -> float:
        """‖XΔ - R‖² of a change `(systems, features + 1, outputs)`; its last row is the bias."""
        linear = float(np.vdot(change, self.cross))
        return self.square - 2 * linear + float(np.vdot(change, self.gram @ change))

    def solve(self, ridge: float, intercept: bool) -> Matrix:
        """The change Δ and, as its last row, that of the intercept.

        Args:
            ridge: λ relative to the mean of the diagonal of XᵀX.
            intercept: Whether a constant may be added; it is not shrunk.
        """
        return np.stack(
            [
                _solve(gram, cross, ridge, intercept)
                for gram, cross in zip(self.gram, self.cross, strict=True)
            ]
        )


def best_change(
    fit: NormalEquations,
    held_out: NormalEquations,
    intercept: bool,
    ridges: Sequence[float] = RIDGES,
    rounded: Callable[[Matrix], Matrix] = lambda change: change,
) -> Matrix | None:
    """The change by all rows, with the ridge that does best on rows held out.

    Args:
        fit: The rows to fit on.
        held_out: The rows to choose the ridge by; it may have none.
        intercept: Whether a constant may be added.
        ridges: The values of λ to choose among.
        rounded: Function from a change to what the precision of the weights leaves of it.

    Returns:
        The change, or `None` where no ridge makes the residuals of the held-out rows smaller.
    """
    ridge = ridges[len(ridges) // 2]
    if held_out.rows:

        def error(number: int) -> float:
            return _finite(held_out.error(rounded(fit.solve(ridges[number], intercept))))

        best, least = _lowest(error, len(ridges))
        if not least < held_out.square:
            return None
        ridge = ridges[best]
    whole = fit.plus(held_out)
    change = whole.solve(ridge, intercept)
    return change if _finite(whole.error(rounded(change))) < whole.square else None


def _lowest(error: Callable[[int], float], count: int) -> tuple[int, float]:
    """The number of the lowest error, by steps down from the middle, and that error.

    Errors fall with a growing ridge until they grow, so that few of them have to be computed.
    """
    best = count // 2
    least = error(best)
    for step in (1, -1):
        start = best
        while 0 <= best + step < count:
            found = error(best + step)
            if found >= least:
                break
            best, least = best + step, found
        if best != start:
            break
    return best, least


def _finite(error: float) -> float:
    """Weights that are too large for their precision are no solution."""
    return error if np.isfinite(error) else np.inf


def _solve(gram: Matrix, cross: Matrix, ridge: float, intercept: bool) -> Matrix:
    size = len(gram) - 1
    inner, outer = gram[:size, :size], cross[:size]
    rows = gram[size, size]
    mean, offset = gram[size, :size] / max(rows, 1.0), cross[size] / max(rows, 1.0)
    if intercept:
        inner = inner - rows * np.outer(mean, mean)
        outer = outer - rows * np.outer(mean, offset)
    diagonal = float(np.trace(inner)) / max(size, 1)
    change = np.zeros_like(cross)
    if diagonal > 0:
        change[:size] = _ridge_solution(inner, outer, ridge * diagonal)
    if intercept:
        change[size] = offset - mean @ change[:size]
    return change


def _ridge_solution(inner: Matrix, outer: Matrix, strength: float) -> Matrix:
    shifted = inner + strength * np.eye(len(inner))
    try:
        factor = cho_factor(shifted, lower=True, overwrite_a=True, check_finite=False)
        return np.asarray(cho_solve(factor, outer, check_finite=False))
    except LinAlgError:
        # Rounding made a tiny eigenvalue negative.
        values, vectors = np.linalg.eigh(inner)
        scale = np.maximum(values, 0)[:, None] + strength
        return np.asarray(vectors @ ((vectors.T @ outer) / scale))
