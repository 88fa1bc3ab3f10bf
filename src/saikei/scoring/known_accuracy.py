"""Accuracy of the labels that are known."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


class KnownAccuracy(keras.metrics.SparseCategoricalAccuracy):
    """The share of labels whose class is the most likely, without those that a loss ignores.

    Args:
        ignored: the class number that does not count.
        **arguments: of `keras.metrics.SparseCategoricalAccuracy`.
    """

    def __init__(self, ignored: int, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._ignored = ignored

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        """Count a batch."""
        y_true = ops.convert_to_tensor(y_true)
        known = ops.not_equal(y_true, ops.cast(self._ignored, y_true.dtype))
        y_true = ops.where(known, y_true, ops.zeros_like(y_true))
        if len(known.shape) == len(y_pred.shape):
            known = ops.squeeze(known, -1)
        weight = ops.cast(known, self.dtype)
        if sample_weight is not None:
            sample_weight = ops.cast(sample_weight, self.dtype)
            while len(sample_weight.shape) < len(weight.shape):
                sample_weight = ops.expand_dims(sample_weight, -1)
            weight = weight * sample_weight
        return super().update_state(y_true, y_pred, sample_weight=weight)
