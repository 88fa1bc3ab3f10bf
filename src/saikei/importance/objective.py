"""The loss whose gradients say what matters, from outputs and labels alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import tree
from numpy.typing import NDArray

from saikei.errors import EditError

Array = NDArray[Any]


def objective(
    outputs: Sequence[Array], labels: Any, ignored: int | None = None
) -> Callable[[list[Any], list[Any]], Any]:
    """The loss of a model: log-loss where outputs or labels are classes, else squared error.

    Outputs that are all positive and sum to one are probabilities, those within [0, 1] are too
    where labels are 0 and 1, and others are logits.

    Args:
        outputs: of the model on some samples, flattened.
        labels: of the same samples, nested as outputs are.
        ignored: the class number that the model's own loss leaves out; see
            `saikei.graph.IgnoredClass`.

    Raises:
        EditError: when labels do not fit the outputs.
    """
    flat = tree.flatten(labels)
    if len(flat) != len(outputs):
        raise EditError(
            f"Gradients need labels for each of the model's {len(outputs)} outputs, and the data "
            f"holds {len(flat)}: hand in data with labels."
        )
    parts = [_loss(o, np.asarray(y), ignored) for o, y in zip(outputs, flat, strict=True)]

    def total(predictions: list[Any], truths: list[Any]) -> Any:
        losses = [part(y, p) for part, p, y in zip(parts, predictions, truths, strict=True)]
        return sum(losses[1:], start=losses[0])

    return total


def _loss(output: Array, labels: Array, ignored: int | None) -> Callable[[Any, Any], Any]:
    if labels.dtype.kind not in "biuf":
        raise EditError(f"Labels are of type {labels.dtype}: number the classes from 0.")
    width = output.shape[-1]
    values = np.asarray(output, np.float32)
    bounded = bool(((values >= 0) & (values <= 1)).all())
    classes = labels.reshape(-1).dtype.kind in "biu" or bool((labels == np.round(labels)).all())
    sparse = labels.size * width == output.size and width > 1
    if sparse and classes:
        odd = (labels < 0) | (labels >= width) if ignored is None else np.zeros(1, bool)
        if odd.any():
            raise EditError(
                f"Labels run from {labels.min():g} to {labels.max():g}, but the outputs are of "
                f"{width} classes: number them from 0 to {width - 1}."
            )
        logits = not (bounded and np.allclose(values.sum(axis=-1), 1, atol=1e-2))
        entropy = keras.losses.SparseCategoricalCrossentropy(
            from_logits=logits, ignore_class=ignored
        )
        shape = output.shape[1:-1]
        return lambda y, p: entropy(keras.ops.reshape(y, (-1, *shape)), p)
    if labels.size != output.size:
        raise EditError(
            f"Labels of shape {labels.shape} do not fit outputs of shape {output.shape}, so there "
            "is no loss to take gradients of: hand in labels, or use importance='magnitude'."
        )
    binary = bool(np.isin(labels, (0, 1)).all())
    one_hot = binary and width > 1 and bool((labels.reshape(-1, width).sum(axis=-1) == 1).all())
    loss: Any = keras.losses.MeanSquaredError()
    if one_hot and not (bounded and not np.allclose(values.sum(axis=-1), 1, atol=1e-2)):
        loss = keras.losses.CategoricalCrossentropy(from_logits=not bounded)
    elif binary:
        loss = keras.losses.BinaryCrossentropy(from_logits=not bounded)
    return lambda y, p: loss(keras.ops.reshape(y, keras.ops.shape(p)), p)
