"""What counts: the labels of one output, and how much each row or position of them counts.

Padding that an output's mask covers, a class that the loss ignores, labels that are not known and
rows of weight 0 do not count; sample weights set how much the others count. All of it is one array
beside the labels, so that every score and every fit counts the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from saikei.batches import check_weights
from saikei.errors import DataError

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, eq=False)
class Labels:
    """The labels of one output.

    Args:
        values: One row for each sample. What does not count is a 0.
        importance: How much each row `(n,)`, position `(n, …)` or label counts, with mean 1 over
            the whole data; `None` where all count 1.
        scale: The factor of a loss: as in Keras a loss is a sum of weighted losses divided
            by how many there are, not by the sum of their weights. So it is the mean weight.
    """

    values: Array
    importance: Array | None = None
    scale: float = 1.0

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, rows: Any) -> Labels:
        importance = None if self.importance is None else self.importance[rows]
        return replace(self, values=self.values[rows], importance=importance)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        """The values alone."""
        return np.array(self.values, dtype=dtype, copy=copy or None)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the values."""
        return tuple(self.values.shape)

    def reshaped(self, shape: tuple[int, ...]) -> Labels:
        """The labels in another shape with the same rows."""
        return replace(self, values=self.values.reshape(shape))

    def over(self, shape: tuple[int, ...]) -> Array:
        """How much each number of an array of this shape counts, float64."""
        if self.importance is None:
            return np.ones(shape)
        return np.array(np.broadcast_to(_spread(self.importance, shape), shape), dtype=np.float64)

    def rows(self) -> Array:
        """How much each row counts, float64 `(n,)`, with mean 1 over the whole data."""
        if self.importance is None:
            return np.ones(len(self))
        return row_means(self.importance)

    @property
    def counted(self) -> Array:
        """Which rows count at all, booleans `(n,)`."""
        return np.asarray(self.rows() > 0)

    @property
    def by_position(self) -> bool:
        """Whether parts of a row may count differently."""
        return self.importance is not None and self.importance.size > len(self)

    @property
    def known(self) -> bool:
        """Whether everything counts, some of it perhaps more."""
        return self.importance is None or bool((self.importance > 0).all())

    def mean(self, each: Array) -> Array:
        """What numbers of each label contribute to their mean, row by row, float64 `(n,)`.

        Args:
            each: `(n, …)`, of the shape of the labels or with more axes behind them.

        Returns:
            Numbers whose mean over the whole data is the weighted mean of `each`.
        """
        if self.importance is None:
            return row_means(each)
        return row_means(each * _spread(self.importance, each.shape))


def as_labels(labels: Any) -> Labels:
    """Labels that all count the same, unless they are `Labels` already."""
    return labels if isinstance(labels, Labels) else Labels(np.asarray(labels))


def count(
    values: Array, known: Array | None, mask: Any, weights: Any, name: str = "the given data"
) -> Labels:
    """Labels, and how much each of them counts.

    Args:
        values: Labels of one output.
        known: Whether each is a label at all, booleans of their shape; `None` where all are.
        mask: Booleans of the output's rows or positions, or `None`: what is `False` is padding.
        weights: The weights of the rows or positions, or `None`.
        name: The name of the data, for messages.

    Raises:
        DataError: When mask or weights do not fit the labels, weights are negative or not
            finite, or nothing counts.
    """
    values, counted, importance = count_raw(values, known, mask, weights, name)
    if importance is None:
        return Labels(values)
    total = float(importance.mean())
    before = 1.0 if counted is None else float(counted.mean())
    if not total > 0:
        raise DataError(
            f"Nothing of {name} counts: every label is masked, ignored by the loss or of weight "
            "0. Give samples that count."
        )
    scale = total / before
    if counted is None and np.ptp(importance) == 0:
        return Labels(values, None, scale)
    return Labels(values, importance / total, scale)


def count_raw(
    values: Array, known: Array | None, mask: Any, weights: Any, name: str = "the given data"
) -> tuple[Array, Array | None, Array | None]:
    """What counts of labels that may be a part of the data; for the arguments see `count`.

    Returns:
        The labels with 0 where they do not count; which of them do, whatever their weight, or
        `None` for all; and how much they count, or `None` where all count the same.

    Raises:
        DataError: When mask or weights do not fit the labels, or weights are negative or not
            finite.
    """
    counted: Array | None = None
    for one in (known, mask):
        if one is not None:
            fitting = _fitting(np.asarray(one, dtype=bool), values, "The mask", name)
            counted = fitting if counted is None else _both(counted, fitting)
    if counted is not None and counted.all():
        counted = None
    if counted is not None:
        values = np.where(_spread(counted, values.shape), values, np.zeros((), values.dtype))
    if weights is None:
        return values, counted, None if counted is None else counted.astype(np.float64)
    own = _checked_weights(values, weights, name)
    return values, counted, own if counted is None else _both(counted.astype(np.float64), own)


def _checked_weights(values: Array, weights: Any, name: str) -> Array:
    given = np.asarray(weights, dtype=np.float64)
    check_weights(given, name)
    return _fitting(given, values, "The sample weights", name)


def row_means(values: Array) -> Array:
    """The mean of each row, float64 `(n,)`."""
    if values.ndim == 1:
        return values.astype(np.float64)
    return np.asarray(values.reshape(len(values), -1).mean(axis=1, dtype=np.float64))


def row_importance(labels: Sequence[Any]) -> Array:
    """How much each row counts for several outputs together, `(n,)`."""
    return np.asarray(np.mean([as_labels(one).rows() for one in labels], axis=0))


def _both(a: Array, b: Array) -> Array:
    shape = a.shape if a.ndim >= b.ndim else b.shape
    return np.asarray(_spread(a, shape) * _spread(b, shape))


def _spread(array: Array, shape: tuple[int, ...]) -> Array:
    """Append axes, so that an array is broadcast over one of this shape."""
    if array.ndim > len(shape):
        return array.reshape(shape)
    return array.reshape(array.shape + (1,) * (len(shape) - array.ndim))


def _fitting(array: Array, values: Array, what: str, name: str) -> Array:
    """The array without axes of size 1 at its end, once it fits the first axes of labels."""
    squeezed, shape = array, values.shape
    while squeezed.ndim > 1 and squeezed.shape[-1] == 1 and squeezed.shape != shape:
        squeezed = squeezed[..., 0]
    while len(shape) > 1 and squeezed.ndim < len(shape) and shape[-1] == 1:
        shape = shape[:-1]
    if squeezed.shape != shape[: squeezed.ndim] or not squeezed.ndim:
        raise DataError(
            f"{what} of {name}, of shape {array.shape}, cannot be laid over labels of shape "
            f"{values.shape}: give one number for each row, or one for each position."
        )
    return squeezed
