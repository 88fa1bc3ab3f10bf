"""Refit BatchNormalization: statistics of what it reads now, scale and offset by least squares."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saikei.graph import Operation

Array = NDArray[Any]
Pair = tuple[Array, Array]


def refit_batch_norm(operation: Operation, pairs: Sequence[Pair]) -> Operation:
    """The layer with the moving statistics of its inputs, and outputs as wanted.

    Each channel of the output is a multiple of the input plus a constant; both are fitted. They
    are kept in gamma and beta where the layer has these, and in the statistics where not.

    Args:
        operation: The `BatchNormalization` to refit.
        pairs: For each of its calls, its input and the wanted output, of one shape.
    """
    config = operation.config or {}
    given, wanted = (_columns(arrays, config["axis"]) for arrays in zip(*pairs, strict=True))
    mean, variance = given.mean(axis=0), given.var(axis=0)
    goal = wanted.mean(axis=0)
    covariance = ((given - mean) * (wanted - goal)).mean(axis=0)
    epsilon = float(config["epsilon"])
    weights = operation.weights
    numbers = {name: w.numpy().astype(np.float64) for name, w in weights.items()}
    slope = numbers.get("gamma", 1.0) / np.sqrt(numbers["moving_variance"] + epsilon)
    # The scale of a channel that is constant on the samples cannot be fitted.
    moving = variance > 1e-12 * np.square(mean) + 1e-20
    slope = np.where(moving, covariance / np.where(moving, variance, 1.0), slope)
    variance = np.where(moving, variance, numbers["moving_variance"])
    if "gamma" in weights:
        numbers["gamma"] = slope * np.sqrt(variance + epsilon)
    else:
        # Without gamma the scale is 1/√(variance + ε), which is positive and at most 1/√ε.
        usable = (slope > 0) & (1 / np.square(np.maximum(slope, 1e-30)) > epsilon)
        variance = np.where(usable, 1 / np.square(np.maximum(slope, 1e-30)) - epsilon, variance)
        slope = 1 / np.sqrt(variance + epsilon)
    if "beta" in weights:
        numbers["beta"] = goal
    else:
        mean = mean - goal / np.where(slope == 0, 1.0, slope)
    numbers["moving_mean"], numbers["moving_variance"] = mean, variance
    changed = {
        name: weight.with_array(numbers[name].astype(weight.numpy().dtype))
        for name, weight in weights.items()
    }
    return replace(operation, weights=changed)


def _columns(arrays: Sequence[Array], axis: int | Sequence[int]) -> Array:
    position = axis[0] if isinstance(axis, (list, tuple)) else axis
    columns = [np.moveaxis(array, position, -1) for array in arrays]
    return np.concatenate([c.reshape(-1, c.shape[-1]) for c in columns]).astype(np.float64)
