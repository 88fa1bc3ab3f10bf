"""Zeros that a kernel has already, and whether they are meant to stay."""

from __future__ import annotations

from typing import Any

import numpy as np

from saikei.tensors import is_half, rounding

Array = np.ndarray[Any, np.dtype[Any]]
Mask = np.ndarray[Any, np.dtype[np.bool_]]

# Among millions of weights some are zero by chance.
BY_CHANCE = 0.001


def is_kernel(name: str, shape: tuple[int, ...]) -> bool:
    """Whether a weight is a kernel, which can be sparse: not a bias, a scale or a table.

    Args:
        name: The weight's own name or path, such as `"kernel"` or `"query/kernel"`.
        shape: The shape of the weight.
    """
    last = name.split("/")[-1].split("#")[0]
    return last.endswith("kernel") and len(shape) >= 2


def meant_zeros(array: Array) -> Mask | None:
    """The exact zeros of a kernel that is sparse; `None` where it is not.

    Training hardly ever makes a weight exactly zero, so zeros were put there. Not always to
    stay, though: a kernel that is enlarged has rows, columns or window positions of zeros that
    training is to fill, and one that starts as the identity has zeros off its diagonal. So a
    kernel counts as sparse when more than one weight in 1,000 is a zero outside of whole rows,
    columns and window positions (in half precision, more than random numbers have), and it is not
    diagonal; then all of its zeros are meant.
    """
    zeros = array == 0
    if not zeros.any() or zeros.all():
        return None
    matrices = zeros.reshape(-1, *zeros.shape[-2:])
    whole = np.zeros_like(matrices)
    for axes in ((1, 2), (0, 1), (0, 2)):
        # A slice of one weight is a weight, not a row.
        if np.prod([matrices.shape[axis] for axis in axes]) > 1:
            whole |= matrices.all(axis=axes, keepdims=True)
    scattered = int((matrices & ~whole).sum())
    if scattered > _by_chance(array) * array.size and not _is_diagonal(~matrices):
        return np.asarray(zeros)
    return None


def _by_chance(array: Array) -> float:
    """The share of zeros that random numbers of a kernel's dtype may have.

    Backends draw as many different numbers as the dtype has fractions, 128 in bfloat16, of which
    one is zero: so many of a kernel, give or take four standard deviations.
    """
    if not is_half(array.dtype):
        return BY_CHANCE
    each = rounding(array.dtype) * 2
    return float(max(BY_CHANCE, each + 4 * np.sqrt(each / array.size)))


def _is_diagonal(filled: Mask) -> bool:
    """Whether no row and no column of any matrix has two weights, and there are several."""
    rows, columns = filled.sum(axis=2), filled.sum(axis=1)
    return bool(rows.max() <= 1 and columns.max() <= 1 and min(filled.shape[1:]) > 1)
