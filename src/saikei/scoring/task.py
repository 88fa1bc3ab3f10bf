"""`Task`: what one output of a model learns, with its loss, its metric and its labels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import keras
import numpy as np
from keras import ops

from saikei.batches import Array
from saikei.errors import DataError
from saikei.losses import describe_loss, ignored_class, leaves_out_nan
from saikei.scoring.labels import Labels, count

Kind = Literal["binary", "multiclass", "multilabel", "regression"]


@dataclass(frozen=True)
class Task:
    """What one output of a model learns.

    Args:
        kind: `"binary"` (one probability), `"multiclass"` (one of the last axis),
            `"multilabel"` (any of the last axis) or `"regression"`.
        loss: A Keras loss; the mean over the batch is minimised.
        metric: `"accuracy"`, `"binary_accuracy"`, `"mse"`, or `"nats"`, the log-loss of a label.
        from_logits: Whether the outputs are logits rather than probabilities.
        sparse: Whether labels are class numbers rather than one-hot rows.
        outputs: Size of the outputs' last axis.
    """

    kind: Kind
    loss: Any
    metric: Literal["accuracy", "binary_accuracy", "mse", "nats"]
    from_logits: bool
    sparse: bool
    outputs: int

    @property
    def greater_is_better(self) -> bool:
        """Whether a higher metric is a better model."""
        return self.metric not in ("mse", "nats")

    @property
    def ignored(self) -> int | None:
        """The class number that the loss leaves out, if it does."""
        return ignored_class(self.loss) if self.sparse else None

    def known(self, y: Array) -> Array | None:
        """Which labels are labels at all, booleans; `None` where all are.

        Labels of the class that the loss leaves out are not, nor is NaN.
        """
        known = np.isfinite(y) if y.dtype.kind == "f" else np.ones(y.shape, dtype=bool)
        if self.ignored is not None:
            known &= y != self.ignored
        return None if known.all() else known

    def keras_metric(self, plain: bool = False) -> keras.metrics.Metric:
        """The metric as Keras computes it during training.

        Args:
            plain: Take one of Keras's own, which every file can hold, although it counts labels
                that the loss ignores.
        """
        if self.kind == "regression":
            return keras.metrics.MeanSquaredError(name="mse")
        if self.kind != "multiclass":
            threshold = 0.0 if self.from_logits else 0.5
            return keras.metrics.BinaryAccuracy(name=self.metric, threshold=threshold)
        if self.sparse and self.ignored is not None and not plain:
            return KnownAccuracy(self.ignored, name="accuracy")
        if self.sparse:
            return keras.metrics.SparseCategoricalAccuracy(name="accuracy")
        return keras.metrics.CategoricalAccuracy(name="accuracy")


def labels_for(task: Task, y: Any) -> Labels:
    """Labels of an output, with what counts of them.

    Raises:
        DataError: When labels are NaN, or none counts.
    """
    if isinstance(y, Labels):
        return y
    array = np.asarray(y)
    known = task.known(array) if array.dtype.kind in "biuf" else None
    if known is None:
        return Labels(array)
    if array.dtype.kind == "f" and describe_loss(task.loss) is not None:
        check_finite_labels("these predictions", task.loss, array.shape, array)
    return count(array, known, None, None)


def labels_of(task: Task, prediction: Array, y: Any) -> Labels:
    """Labels in the shape that predictions call for, with what counts of them.

    Args:
        task: What the output learns.
        prediction: `(n, …, outputs)`.
        y: An array, or `Labels`.

    Raises:
        DataError: When the labels do not fit the predictions, or there are none.
    """
    labels, shape = labels_for(task, y), prediction.shape
    values = labels.values
    if len(values) != len(prediction):
        raise DataError(
            f"{len(values)} labels do not fit {len(prediction)} predictions: score the same "
            "samples."
        )
    if len(values) == 0:
        raise DataError("There are no samples to score: give at least one.")
    sparse = task.kind == "multiclass" and task.sparse
    shape = shape[:-1] if sparse else shape
    if values.size != math.prod(shape):
        raise DataError(
            f"Labels of shape {values.shape} do not fit predictions of shape {prediction.shape}: "
            f"give {'a class' if sparse else 'a number'} for each of {shape}."
        )
    if sparse and (values.min() < 0 or values.max() >= prediction.shape[-1]):
        raise DataError(
            f"Labels run from {values.min()} to {values.max()}, but there are "
            f"{prediction.shape[-1]} classes: number them from 0 to {prediction.shape[-1] - 1}."
        )
    return labels.reshaped(shape)


def check_finite_labels(name: str, loss: Any, shape: tuple[int | None, ...], y: Array) -> None:
    """Refuse labels that are NaN or infinite, unless the loss leaves them out.

    Args:
        name: What the labels are for, for messages.
        loss: A loss object, or `None`.
        shape: The shape of the output, batch axis first.
        y: Labels `(n, …)`.
    """
    if y.dtype.kind != "f" or np.isfinite(y).all() or leaves_out_nan(loss, y, shape):
        return
    bad = ~np.isfinite(y).reshape(len(y), -1).all(axis=1)
    raise DataError(
        f"The labels for {name} hold NaN or infinite numbers in {int(bad.sum()):,} of {len(y):,} "
        f"rows, first in row {int(bad.argmax())}: remove these rows or fill them, or compile with "
        "a loss of your own that leaves out labels that are NaN."
    )


class KnownAccuracy(keras.metrics.SparseCategoricalAccuracy):
    """The share of labels whose class is the most likely, without those that a loss ignores.

    Args:
        ignored: The class number that does not count.
        **arguments: Arguments of `keras.metrics.SparseCategoricalAccuracy`.
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
