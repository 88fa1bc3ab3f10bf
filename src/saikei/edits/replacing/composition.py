"""One kernel as two that are applied one after the other, by least squares on the weights."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Sizes = tuple[int, ...]

_STEPS = 200
_TOLERANCE = 1e-7
_PROGRESS = 1e-3
# Multiplications after which a fit ends: seconds on one core.
_WORK = 2e11


def compose(first: Array, second: Array) -> Array:
    """The kernel that equals two in a row: C[p] = Σ over i + j = p of A[i] B[j].

    Args:
        first: `(*taps, in, middle)`.
        second: `(*taps, middle, out)`.
    """
    axes = first.ndim - 2
    taps = tuple(a + b - 1 for a, b in zip(first.shape[:axes], second.shape[:axes], strict=True))
    composed = np.zeros((*taps, first.shape[-2], second.shape[-1]))
    for i in np.ndindex(*first.shape[:axes]):
        for j in np.ndindex(*second.shape[:axes]):
            composed[_sum(i, j)] += first[i] @ second[j]
    return composed


def stacked(kernel: Array, first: Sizes, middle: int) -> tuple[Array, Array]:
    """Two small kernels whose composition is near a large one, by alternating least squares.

    Args:
        kernel: `(*taps, in, out)`.
        first: Taps of the first kernel; the second has `taps − first + 1`.
        middle: Number of channels between, at most `stack_limit`.

    Returns:
        `(*first, in, middle)` and `(*second, middle, out)`.
    """
    axes = len(first)
    second = tuple(k - a + 1 for k, a in zip(kernel.shape[:axes], first, strict=True))
    goal = kernel.astype(np.float64)
    size = float(np.linalg.norm(goal))
    one, other = _start(goal, first, second, middle)
    error = np.inf
    for _ in range(_steps(goal, first, second, middle)):
        other = _solve(one, goal, second)
        # The transpose of a product is the product of transposes, in reverse order.
        one = _swap(_solve(_swap(other), _swap(goal), first))
        before, error = error, float(np.linalg.norm(compose(one, other) - goal))
        if error <= _TOLERANCE * size or before - error < _PROGRESS * error:
            break
    return _balanced(one, other)


def stack_limit(kernel: Array, first: Sizes) -> int:
    """The number of channels between two stacked kernels beyond which more bring nothing."""
    second = [k - a + 1 for k, a in zip(kernel.shape, first, strict=False)]
    return int(min(np.prod(first) * kernel.shape[-2], np.prod(second) * kernel.shape[-1]))


def _halves(matrix: Array, rank: int) -> tuple[Array, Array]:
    """The nearest product of a tall and a wide matrix, the singular values shared evenly."""
    u, s, v = np.linalg.svd(matrix, full_matrices=False)
    root = np.sqrt(s[:rank])
    return u[:, :rank] * root, root[:, None] * v[:rank]


def _start(goal: Array, first: Sizes, second: Sizes, middle: int) -> tuple[Array, Array]:
    """Every tap spread evenly over the pairs (i, j) that add up to it, then halved."""
    inner, outer = goal.shape[-2:]
    pairs = compose(np.ones((*first, 1, 1)), np.ones((*second, 1, 1)))
    spread = np.zeros((*first, inner, *second, outer))
    for i in np.ndindex(*first):
        for j in np.ndindex(*second):
            spread[(*i, slice(None), *j)] = goal[_sum(i, j)] / pairs[_sum(i, j)]
    left, right = _halves(spread.reshape(int(np.prod(first)) * inner, -1), middle)
    return left.reshape(*first, inner, middle), np.moveaxis(
        right.reshape(middle, *second, outer), 0, -2
    )


def _solve(one: Array, goal: Array, second: Sizes) -> Array:
    """The second kernel that, after the first, is nearest to the goal, by normal equations."""
    middle, outer = one.shape[-1], goal.shape[-1]
    taps = list(np.ndindex(*one.shape[:-2]))
    positions = list(np.ndindex(*second))
    # Column blocks of the linear map are shifts of the first kernel, so their products depend
    # on the difference of the shifts alone.
    products: dict[Sizes, Array] = {}
    for i, other in _pairs(taps):
        shift = tuple(b - a for a, b in zip(i, other, strict=True))
        products[shift] = products.get(shift, 0.0) + one[i].T @ one[other]
    count = len(positions)
    gram = np.zeros((count, middle, count, middle))
    right = np.zeros((count, middle, outer))
    for row, j in enumerate(positions):
        right[row] = sum(one[i].T @ goal[_sum(i, j)] for i in taps)
        for column, other in enumerate(positions):
            shift = tuple(a - b for a, b in zip(j, other, strict=True))
            if shift in products:
                gram[row, :, column, :] = products[shift]
    square = gram.reshape(count * middle, -1)
    square[np.diag_indices_from(square)] += 1e-10 * np.trace(square) / len(square) + 1e-30
    solved = np.linalg.solve(square, right.reshape(count * middle, outer))
    return solved.reshape(*second, middle, outer)


def _steps(goal: Array, first: Sizes, second: Sizes, middle: int) -> int:
    pairs = float(np.prod(first) * np.prod(second)) * middle
    products = 2 * pairs * (middle + sum(goal.shape[-2:]))
    solving = sum(float(np.prod(taps) * middle) ** 3 / 3 for taps in (first, second))
    return int(min(max(_WORK / (products * middle + solving), 5), _STEPS))


def _balanced(one: Array, other: Array) -> tuple[Array, Array]:
    """Both kernels of equal size, channel by channel: better numbers for training further."""
    a = np.sqrt((one**2).sum(axis=tuple(range(one.ndim - 1))))
    b = np.sqrt((other**2).sum(axis=(*range(other.ndim - 2), other.ndim - 1)))
    with np.errstate(divide="ignore", invalid="ignore"):
        scale = np.where((a > 0) & (b > 0), np.sqrt(b / a), 1.0)
    return one * scale, other / scale[:, None]


def _pairs(taps: list[Sizes]) -> Iterator[tuple[Sizes, Sizes]]:
    return ((a, b) for a in taps for b in taps)


def _swap(kernel: Array) -> Array:
    return np.swapaxes(kernel, -1, -2)


def _sum(i: Sizes, j: Sizes) -> Sizes:
    return tuple(a + b for a, b in zip(i, j, strict=True))
