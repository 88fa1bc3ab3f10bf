"""Convex minimisation over weights that are at least 0 and sum to 1, with a stated gap.

For a convex f the gap `g·w - min(g)`, with g the gradient at w, bounds how far f(w) lies above
the minimum over the whole simplex (Frank and Wolfe, 1956). For the log-loss of a mixture it is
`max(r) - 1` with r the mean ratio of a member's probability to the mixture's, the usual
certificate of the EM update w ← w·r.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import optimize

from saikei.scoring.logit_loss import ValueAndGradient

Array = np.ndarray[Any, np.dtype[np.float64]]

_NEWTON_STEPS = 100
_TINY_GAP = 1e-8


@dataclass(frozen=True)
class SimplexMinimum:
    """A minimum over the simplex.

    Args:
        weights: float64 `(members,)`, at least 0, with sum 1.
        value: The objective there.
        gap: How far the value can at most lie above the true minimum.
    """

    weights: Array
    value: float
    gap: float


def duality_gap(weights: Array, gradient: Array) -> float:
    """The Frank-Wolfe gap of a point of the simplex; never below 0."""
    return max(0.0, float(gradient @ weights - gradient.min()))


def least_squares(residuals: Array) -> SimplexMinimum:
    """Minimise the mean square of the weighted mean of the members' residuals.

    On the simplex the non-negative least squares problem `min |R u|² + (1·u - 1)²` has its
    solution along the ray of the minimum of `|R w|²`: for `u = s·w` it is minimised over s at
    `|R w|² / (1 + |R w|²)`, which grows with `|R w|²`. So an exact active-set solver for
    non-negative least squares is one for the simplex.

    Args:
        residuals: Predictions minus labels, `(rows, members)`.
    """
    rows, members = residuals.shape
    # The triangular factor has the same norms in at most `members` rows.
    factor: Array = residuals
    if rows > members:
        factor = np.asarray(np.linalg.qr(residuals, mode="r"))
    weights = _smallest(factor)
    mixed = residuals @ weights
    gradient = 2.0 * residuals.T @ mixed / rows
    return SimplexMinimum(weights, float(np.mean(mixed**2)), duality_gap(weights, gradient))


def _smallest(factor: Array) -> Array:
    """The point of the simplex with the smallest `|factor·w|`."""
    members = factor.shape[1]
    scale = float(np.abs(factor).max()) or 1.0
    system = np.vstack([factor / scale, np.ones(members)])
    target = np.zeros(len(system))
    target[-1] = 1.0
    solution, _ = optimize.nnls(system, target, maxiter=50 * members)
    return _on_simplex(solution)


def mixture_log_loss(probabilities: Array, importance: Array) -> SimplexMinimum:
    """Minimise the log-loss of a mixture, `-Σᵢ aᵢ log(pᵢ·w)`.

    Newton's method: with the ratios `R = p / (p·w)` the quadratic model of the loss is, up to a
    constant, `½ Σᵢ aᵢ (Rᵢ·v - 2)²`, a least squares problem over the simplex, solved exactly. A
    line search makes each step go down; the loss is self-concordant, so that suffices.

    Args:
        probabilities: `(rows, members)`, positive: each member's probability of the true label.
        importance: a, `(rows,)`, at least 0, with sum 1.
    """

    def value_and_gradient(weights: Array) -> tuple[float, Array]:
        mixed = probabilities @ weights
        gradient = -(importance / mixed) @ probabilities
        return -float(importance @ np.log(mixed)), gradient

    root = np.sqrt(importance * len(importance))[:, None]
    weights = _equal(probabilities.shape[1])
    value, gradient = value_and_gradient(weights)
    for _ in range(_NEWTON_STEPS):
        if duality_gap(weights, gradient) <= _TINY_GAP:
            break
        ratios = probabilities / (probabilities @ weights)[:, None]
        target = _newton_point(root * (ratios - 2.0))
        step = line_search(value_and_gradient, weights, target - weights, value, gradient)
        if step is None:
            break
        weights, value, gradient = step
    return _best_of(value_and_gradient, weights)


def _newton_point(residuals: Array) -> Array:
    """The minimum of the quadratic model.

    From inner products, in a fraction of the time of a factorisation of all rows; what they lose
    in accuracy, the next step makes good. Where members are nearly alike they lose too much.
    """
    if len(residuals) > residuals.shape[1]:
        try:
            lower = np.linalg.cholesky(residuals.T @ residuals)
            return _smallest(np.asarray(lower.T, dtype=np.float64))
        except np.linalg.LinAlgError:
            pass
    return least_squares(residuals).weights


def any_convex(value_and_gradient: ValueAndGradient, members: int) -> SimplexMinimum:
    """Minimise any smooth convex objective, by sequential quadratic programming."""
    result = optimize.minimize(
        value_and_gradient,
        _equal(members),
        jac=True,
        method="SLSQP",
        bounds=[(0.0, 1.0)] * members,
        constraints={
            "type": "eq",
            "fun": lambda weights: weights.sum() - 1.0,
            "jac": lambda _: np.ones(members),
        },
        options={"ftol": 1e-14, "maxiter": 1000},
    )
    return _best_of(value_and_gradient, _on_simplex(np.maximum(result.x, 0.0)))


def line_search(
    objective: ValueAndGradient, start: Array, direction: Array, value: float, gradient: Array
) -> tuple[Array, float, Array] | None:
    """Halve the step until it goes down enough; `None` when rounding allows no more.

    Args:
        objective: Function that gives the value and its gradient, of the shape of the weights.
        start: Weights, one or several rows on the simplex.
        direction: The step to weights that are on the simplex too.
        value: The objective at the start.
        gradient: The gradient at the start.

    Returns:
        The weights found, with the objective's value and gradient there.
    """
    slope, step = float((gradient * direction).sum()), 1.0
    while slope < 0 and step > 1e-10:
        point = _on_simplex(start + step * direction)
        lower, there = objective(point)
        if lower < value and lower <= value + 1e-4 * step * slope:
            return point, lower, there
        step /= 2
    return None


def _best_of(objective: ValueAndGradient, found: Array) -> SimplexMinimum:
    """The found point, or a corner or the centre where rounding left that a little lower."""
    members = len(found)
    value, gradient = objective(found)
    gap = duality_gap(found, gradient)
    for corner in (*np.eye(members), _equal(members)):
        at_corner, slope = objective(corner)
        if at_corner < value:
            found, value, gap = corner, at_corner, duality_gap(corner, slope)
    return SimplexMinimum(found, value, gap)


def _equal(members: int) -> Array:
    return np.full(members, 1.0 / members)


def _on_simplex(weights: Array) -> Array:
    """Remove rounding errors: tiny weights, and a sum that is not 1."""
    kept = np.where(weights > 1e-12, weights, 0.0)
    return np.asarray(kept / kept.sum(axis=-1, keepdims=True))
