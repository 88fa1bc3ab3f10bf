"""Sample weights of the batch that a distiller is at, for losses that Keras calls without them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops

from saikei.graph import internals


class Weighing:
    """The weights of the batch, for each output."""

    def __init__(self) -> None:
        self.weights: list[Any] | None = None

    def of(self, output: int, predicted: Any) -> Any:
        """The weights for an output, with an axis for each of its positions; `None` without any.

        Args:
            output: The number of the output.
            predicted: What the student gives there.
        """
        if self.weights is None:
            return None
        weights = self.weights[0 if len(self.weights) == 1 else output]
        while weights is not None and len(weights.shape) < len(predicted.shape) - 1:
            weights = ops.expand_dims(weights, -1)
        return weights

    def losses(self, losses: Sequence[Any]) -> tuple[Callable[[Any, Any], Any], ...]:
        """For each output a function of labels and predictions; see `loss`.

        Args:
            losses: The loss of each output.
        """
        return tuple(self.loss(output, loss) for output, loss in enumerate(losses))

    def loss(self, output: int, loss: Any) -> Callable[[Any, Any], Any]:
        """A function of labels and predictions, weighed by the batch that it is called in.

        Args:
            output: The number of the output.
            loss: An object, or a function of the caller's own.
        """
        whole = loss if isinstance(loss, keras.losses.Loss) else _OwnLoss(loss)
        return lambda y, p: whole(y, p, sample_weight=self.of(output, p))

    def mean(self, output: int, each: Any, predicted: Any) -> Any:
        """The mean of a number for each position, of those that count, as much as they count.

        Args:
            output: The number of the output.
            each: `(batch, …)`.
            predicted: What the student gives there, under its mask if it has one.
        """
        counts, mask = self.of(output, predicted), internals.mask_of(predicted)
        if mask is not None:
            mask = ops.broadcast_to(_laid(ops.cast(mask, each.dtype), each), ops.shape(each))
            each = each * mask
        if counts is not None:
            each = each * _laid(ops.cast(counts, each.dtype), each)
        return ops.mean(each) if mask is None else ops.sum(each) / ops.maximum(ops.sum(mask), 1.0)


class _OwnLoss(keras.losses.Loss):
    """A function of the caller's own as an object, which takes weights and masks."""

    def __init__(self, function: Callable[[Any, Any], Any]) -> None:
        super().__init__(name=getattr(function, "__name__", "loss"))
        self._function = function

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return self._function(y_true, y_pred)


def _laid(counts: Any, each: Any) -> Any:
    while len(counts.shape) < len(each.shape):
        counts = ops.expand_dims(counts, -1)
    while len(counts.shape) > len(each.shape) and counts.shape[-1] == 1:
        counts = ops.squeeze(counts, -1)
    return counts
