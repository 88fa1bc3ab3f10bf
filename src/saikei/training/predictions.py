"""What a model says of data, beside the labels, and as probabilities."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import tree
from scipy import special

from saikei.batches import Array, as_arrays, dataset_batches, to_arrays
from saikei.data import check_inputs, input_count
from saikei.errors import DataError
from saikei.tensors import to_floats
from saikei.training.task import Task


def predict(model: keras.Model, data: Any, batch_size: int = 256) -> tuple[Any, list[Array]]:
    """Labels and outputs of every sample, from one pass over the data.

    Args:
        model: a built model.
        data: `(x, y)` arrays or a dataset. A dataset may come shuffled: labels and outputs are
            gathered in the same pass.
        batch_size: samples a step, for arrays.

    Returns:
        The labels in the structure of the data, and one array `(n, …)` for each output, flattened.

    Raises:
        DataError: when the data is empty, endless, weighted or without labels, or has other
            shapes than the model takes.
    """
    arrays = as_arrays(data, "given", inputs=input_count(model))
    if arrays is not None:
        if arrays.weights is not None:
            raise DataError(
                "The given data holds sample weights, which scores ignore: give (x, y)."
            )
        check_inputs(model, arrays.x, "given")
        outputs = model.predict(arrays.x, batch_size=batch_size, verbose=0)
        return arrays.y, [to_floats(output) for output in tree.flatten(outputs)]
    return _predict_dataset(model, data)


def _predict_dataset(model: keras.Model, data: Any) -> tuple[Any, list[Array]]:
    labels: list[Any] = []
    outputs: list[list[Array]] = []
    for given in dataset_batches(data, "given", inputs=input_count(model)):
        batch = to_arrays(given, "given")
        if batch.weights is not None:
            raise DataError(
                "The given data holds sample weights, which scores ignore: give (x, y)."
            )
        check_inputs(model, batch.x, "given", batch=True)
        labels.append(batch.y)
        outputs.append([to_floats(o) for o in tree.flatten(model.predict_on_batch(batch.x))])
    if not labels:
        raise DataError("The given data is empty: give at least one batch.")
    return (
        tree.map_structure(lambda *parts: np.concatenate(parts), *labels),
        [np.concatenate(parts) for parts in zip(*outputs, strict=True)],
    )


def to_probabilities(task: Task, outputs: Array) -> Array:
    """Probabilities from the outputs of a class task; those that are already so stay so."""
    if not task.from_logits:
        return outputs
    if task.kind == "multiclass":
        return np.asarray(special.softmax(outputs, axis=-1))
    return np.asarray(special.expit(outputs))


def log_probabilities(task: Task, outputs: Array) -> Array:
    """Logarithms of the probabilities that a class task's outputs mean.

    Probabilities are clipped to Keras's epsilon; logits are taken exactly, however large.
    """
    if not task.from_logits:
        epsilon = keras.config.epsilon()
        return np.asarray(np.log(np.clip(outputs, epsilon, 1 - epsilon)))
    if task.kind == "multiclass":
        return np.asarray(special.log_softmax(outputs, axis=-1))
    return np.asarray(special.log_expit(outputs))
