"""Masks of the smallest weights: any of them, or so many of each few along an axis."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from saikei.errors import EditError

Array = np.ndarray[Any, np.dtype[Any]]
Mask = np.ndarray[Any, np.dtype[np.bool_]]


@dataclass(frozen=True)
class Pattern:
    """`n` weights of every `m` along the input axis stay.

    Args:
        kept: n, from 1 to m - 1.
        of: The size m of a group.
    """

    kept: int
    of: int

    @classmethod
    def parse(cls, text: str) -> Pattern | None:
        """From `"2:4"`; `None` for `"unstructured"`.

        Raises:
            EditError: When it is neither.
        """
        if text == "unstructured":
            return None
        match = re.fullmatch(r"(\d+):(\d+)", str(text))
        if match is None or not 0 < int(match[1]) < int(match[2]):
            raise EditError(
                f"Unknown pattern {text!r}: use 'unstructured', or n of every m weights as in "
                "'2:4', with n from 1 to m - 1."
            )
        return cls(int(match[1]), int(match[2]))

    @property
    def sparsity(self) -> float:
        """Share of zeros in whole groups."""
        return 1 - self.kept / self.of


def smallest(scores: Array, count: int) -> Mask:
    """A mask of the `count` smallest scores; of equal ones, those of the lower index."""
    flat = scores.ravel()
    mask = np.zeros(flat.shape, dtype=bool)
    if count > 0:
        threshold = np.partition(flat, count - 1)[count - 1]
        mask = flat < threshold
        mask[np.flatnonzero(flat == threshold)[: count - int(mask.sum())]] = True
    return mask.reshape(scores.shape)


def magnitude(array: Array) -> Array:
    """Absolute values in float32, which knows an order where bfloat16 may not."""
    return np.abs(array.astype(np.float32))


def lamp(array: Array) -> Array:
    """Magnitudes that compare between layers.

    The square of each weight over the sum of those of its kernel that are not smaller (Lee et
    al., "Layer-Adaptive Sparsity for the Magnitude-Based Pruning", 2021). The largest of every
    kernel has score 1, so no layer is emptied before all others.
    """
    squares = magnitude(array).astype(np.float64).ravel() ** 2
    order = np.argsort(squares, kind="stable")
    rest = np.cumsum(squares[order][::-1])[::-1]
    scores = np.zeros_like(squares)
    np.divide(squares[order], rest, out=rest, where=rest > 0)
    scores[order] = rest
    return scores.reshape(array.shape)


def group_zeros(array: Array, axes: tuple[int, ...], of: int, zeros: int) -> Mask:
    """A mask of the smallest `zeros` of every `of` weights along the axes.

    Args:
        array: The kernel.
        axes: Its input axes; several are taken as one, in their order.
        of: Size of a group. What is left of the axis after whole groups has no zeros.
        zeros: The number of zeros in each group.
    """
    front = np.moveaxis(magnitude(array), axes, range(len(axes)))
    length = int(np.prod(front.shape[: len(axes)]))
    rows = front.reshape(length, -1)
    whole = length // of * of
    groups = rows[:whole].reshape(whole // of, of, -1)
    order = np.argsort(groups, axis=1, kind="stable")
    mask = np.zeros(groups.shape, dtype=bool)
    np.put_along_axis(mask, order[:, :zeros], True, axis=1)
    full = np.zeros(rows.shape, dtype=bool)
    full[:whole] = mask.reshape(whole, -1)
    return np.moveaxis(full.reshape(front.shape), range(len(axes)), axes)
