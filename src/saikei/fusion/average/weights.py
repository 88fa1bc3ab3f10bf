"""Learned weights of an average: the best convex combination on held-out data, with its gap."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from saikei.blas import one_thread
from saikei.codec import ToDict
from saikei.errors import DataError, FusionError
from saikei.fusion.average import simplex
from saikei.fusion.average.objectives import Loss, Mixture, Squares, loss_of
from saikei.fusion.average.simplex import Array, SimplexMinimum
from saikei.scoring.task import Task


@dataclass(frozen=True)
class FittedWeights(ToDict):
    """Weights of an average and how good they are.

    Args:
        values: One for each member, at least 0, with sum 1.
        loss: The average's mean log-loss (nats) or squared error on the data of the fit, summed
            over outputs.
        gap: A bound: no weights have a loss lower than `loss - gap`.
    """

    values: tuple[float, ...]
    loss: float
    gap: float


def fit_weights(tasks: Task | Sequence[Task], predictions: Sequence[Any], y: Any) -> FittedWeights:
    """Find the weights that minimise the loss of the weighted average of predictions.

    Deterministic. Members that predict exactly the same share their weight equally, so that the
    order of the members does not matter.

    Args:
        tasks: What the output learns, or one for each output.
        predictions: One entry for each member: `(n, …, outputs)`, or for several outputs a list
            of such arrays. They should come from data that no member was trained on.
        y: Labels, or a list of labels for each output.

    Raises:
        FusionError: When there are fewer than two members.
        DataError: When predictions are not finite, or do not fit each other or the labels.
    """
    if isinstance(tasks, Task):
        return fit_weights((tasks,), [[one] for one in predictions], [y])
    if len(predictions) < 2:
        raise FusionError(f"Weights need at least two members, got {len(predictions)}.")
    unique, of_member = _distinct(predictions)
    if len(unique) == 1:
        minimum = _minimise(loss_of(tasks, [unique[0], unique[0]], y))
        minimum = SimplexMinimum(np.ones(1), minimum.value, 0.0)
    else:
        minimum = _minimise(loss_of(tasks, unique, y))
    shared = minimum.weights[of_member] / np.bincount(of_member)[of_member]
    return FittedWeights(tuple(float(weight) for weight in shared), minimum.value, minimum.gap)


def _distinct(predictions: Sequence[Any]) -> tuple[list[list[Array]], Any]:
    """The distinct members, and for each member the index of the one that it equals.

    Raises:
        DataError: When predictions are not finite.
    """
    unique: list[list[Array]] = []
    of_member: list[int] = []
    for number, member in enumerate(predictions, start=1):
        arrays = finite(member, number)
        same = (i for i, other in enumerate(unique) if _equal(arrays, other))
        index = next(same, len(unique))
        if index == len(unique):
            unique.append(arrays)
        of_member.append(index)
    return unique, np.array(of_member)


def finite(member: Sequence[Any], number: int) -> list[Array]:
    """A member's predictions as arrays.

    Args:
        member: The predictions of each of its outputs.
        number: Its number, counted from 1, for messages.

    Raises:
        DataError: When they are not finite.
    """
    arrays = [np.asarray(part) for part in member]
    # A sum is infinite or NaN where one of its terms is; the other way round it may be too large.
    if not all(
        np.isfinite(part.sum(dtype=np.float64)) or np.isfinite(part).all() for part in arrays
    ):
        raise DataError(f"Member {number} predicts NaN or infinite numbers: check it.")
    return arrays


def _equal(a: list[Array], b: list[Array]) -> bool:
    # Most members differ at once.
    return all(
        np.array_equal(p[:1], q[:1]) and np.array_equal(p, q) for p, q in zip(a, b, strict=True)
    )


def _minimise(loss: Loss) -> SimplexMinimum:
    with one_thread():
        return _minimum(loss)


def _minimum(loss: Loss) -> SimplexMinimum:
    if isinstance(loss, Squares):
        return simplex.least_squares(loss.residuals)
    if isinstance(loss, Mixture):
        minimum = simplex.mixture_log_loss(loss.probabilities, loss.importance)
        return SimplexMinimum(minimum.weights, minimum.value * loss.scale, minimum.gap * loss.scale)
    return simplex.any_convex(loss.objective, loss.members)
