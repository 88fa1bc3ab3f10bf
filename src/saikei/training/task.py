"""What a model is trained for: the kind of each output, its loss and its metric."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import keras
import numpy as np
from keras import tree

from saikei.batches import Array, as_numpy
from saikei.errors import DataError, ModelError
from saikei.training import losses
from saikei.training.outputs import Output, Outputs, read_outputs

Kind = Literal["binary", "multiclass", "multilabel", "regression"]


@dataclass(frozen=True)
class Task:
    """What one output of a model learns.

    Args:
        kind: `"binary"` (one probability), `"multiclass"` (one of the last axis),
            `"multilabel"` (any of the last axis) or `"regression"`.
        loss: a Keras loss; the mean over the batch is minimised.
        metric: `"accuracy"`, `"binary_accuracy"` or `"mse"`.
        from_logits: whether the outputs are logits rather than probabilities.
        sparse: whether labels are class numbers rather than one-hot rows.
        outputs: size of the outputs' last axis.
    """

    kind: Kind
    loss: Any
    metric: Literal["accuracy", "binary_accuracy", "mse"]
    from_logits: bool
    sparse: bool
    outputs: int

    @property
    def greater_is_better(self) -> bool:
        """Whether a higher metric is a better model."""
        return self.metric != "mse"

    def keras_metric(self) -> keras.metrics.Metric:
        """The metric as Keras computes it during training."""
        if self.kind == "regression":
            return keras.metrics.MeanSquaredError(name="mse")
        if self.kind != "multiclass":
            threshold = 0.0 if self.from_logits else 0.5
            return keras.metrics.BinaryAccuracy(name=self.metric, threshold=threshold)
        if self.sparse:
            return keras.metrics.SparseCategoricalAccuracy(name="accuracy")
        return keras.metrics.CategoricalAccuracy(name="accuracy")


def infer_task(model: keras.Model, y: Any, loss: Any = None) -> Task:
    """The task of a model with one output, from its last activation and the labels.

    A loss that is given wins, then the one that the model is compiled with, then the output's
    activation: softmax is multiclass, sigmoid is binary or multilabel. A linear output is
    multiclass from logits where labels are class numbers or one-hot rows, binary from logits
    where one unit meets whole-number labels of 0 and 1, and regression otherwise.

    Args:
        model: a built model.
        y: labels: class numbers `(n,)`, one-hot or multilabel rows `(n, classes)`, or numbers
            of the output's shape.
        loss: a Keras loss or its name.

    Raises:
        DataError: when the labels do not fit the output.
        ModelError: when the model has several outputs (see `infer_tasks`), or no readable
            graph.
    """
    tasks = infer_tasks(model, y, loss)
    if len(tasks) != 1:
        raise ModelError(f"Model '{model.name}' has {len(tasks)} outputs: use infer_tasks.")
    return tasks[0]


def infer_tasks(model: keras.Model, y: Any, loss: Any = None) -> tuple[Task, ...]:
    """The task of each output of a model, flattened; see `infer_task`."""
    outputs = read_outputs(model)
    labels = _flat_labels(model.name, outputs, y)
    given = losses_of(model, loss, len(outputs.each))
    names = [f"output {i} of model '{model.name}'" for i in range(len(given))]
    if len(given) == 1:
        names = [f"model '{model.name}'"]
    return tuple(
        _infer(name, output, array, one)
        for name, output, array, one in zip(names, outputs.each, labels, given, strict=True)
    )


def flat_labels(model: keras.Model, y: Any) -> list[Array]:
    """The labels of each output, in the order of the model's flattened outputs.

    Raises:
        DataError: when there are not as many label arrays as outputs, or their names differ.
    """
    return _flat_labels(model.name, read_outputs(model), y)


def _flat_labels(name: str, outputs: Outputs, y: Any) -> list[Array]:
    structure, count = outputs.structure, len(outputs.each)
    if isinstance(y, dict) != isinstance(structure, dict) and (count > 1 or isinstance(y, dict)):
        wanted = sorted(structure) if isinstance(structure, dict) else f"a list of {count}"
        raise DataError(
            f"Labels come as a {type(y).__name__}, but model '{name}' gives {wanted}: nest the "
            "labels as the model nests its outputs."
        )
    if isinstance(y, dict) and set(structure) != set(y):
        raise DataError(
            f"Labels are named {sorted(y)}, but the outputs of model '{name}' are named "
            f"{sorted(structure)}: use the outputs' names."
        )
    if count == 1 and not isinstance(structure, dict):
        whole = y[0] if isinstance(y, tuple) and len(y) == 1 else y
        return [_as_array(whole)]
    parts = list(tree.flatten(y)) if isinstance(y, dict) else list(y)
    if len(parts) != count:
        raise DataError(
            f"Model '{name}' has {count} outputs, but there are labels for {len(parts)}: give one "
            "array for each output."
        )
    return [_as_array(part) for part in parts]


def _as_array(labels: Any) -> Array:
    array = as_numpy(labels)
    if array.dtype.kind not in "biuf":
        raise DataError(
            f"Labels are of type {array.dtype}, not numbers: number the classes from 0, for "
            "example with sklearn.preprocessing.LabelEncoder."
        )
    return array


def losses_of(model: keras.Model, loss: Any, count: int) -> list[Any]:
    """The loss of each output: as given, else as the model is compiled, else `None`."""
    given = loss if loss is not None else getattr(model, "loss", None)
    if given is None:
        return [None] * count
    flat = list(tree.flatten(given))
    if len(flat) == 1:
        flat = flat * count
    if len(flat) != count:
        raise DataError(
            f"{len(flat)} losses are given for the {count} outputs of model '{model.name}': "
            "give one for each, or one for all."
        )
    return [losses.as_loss(one) for one in flat]


def _infer(name: str, output: Output, y: Array, loss: Any) -> Task:
    shape, activation = output.shape, output.activation
    width = shape[-1] if len(shape) > 1 and shape[-1] is not None else 1
    known = losses.describe(loss)
    if known is not None and known.kind == "crossentropy":
        kind: Kind = "multiclass"
    elif known is not None and known.kind == "binary":
        kind = "binary" if width == 1 else "multilabel"
    elif known is not None:
        kind = "regression"
    else:
        kind = _kind(name, shape, width, activation, y)
    sparse = kind == "multiclass" and not _fits(y.shape[1:], shape[1:])
    from_logits = known.from_logits if known else activation not in ("softmax", "sigmoid")
    _check_labels(name, kind, shape, width, y, sparse)
    _check_sparsity(name, loss, sparse, y)
    return Task(
        kind=kind,
        loss=loss if loss is not None else losses.default(kind, sparse, from_logits),
        metric=_METRICS[kind],
        from_logits=kind != "regression" and from_logits,
        sparse=sparse,
        outputs=width,
    )


_METRICS: dict[Kind, Literal["accuracy", "binary_accuracy", "mse"]] = {
    "binary": "accuracy",
    "multiclass": "accuracy",
    "multilabel": "binary_accuracy",
    "regression": "mse",
}


def _kind(name: str, shape: tuple[int | None, ...], width: int, activation: str, y: Array) -> Kind:
    if activation in ("softmax", "log_softmax"):
        return "multiclass"
    if activation in ("sigmoid", "log_sigmoid"):
        return "binary" if width == 1 else "multilabel"
    if activation != "linear":
        return "regression"
    if width == 1:
        whole = y.dtype.kind in "biu"
        return "binary" if whole and np.isin(np.unique(y), (0, 1)).all() else "regression"
    if _same_rank(y, shape):
        return "multiclass" if _is_one_hot(y) else "regression"
    if y.dtype.kind in "iu":
        return "multiclass"
    raise DataError(
        f"Labels of shape {y.shape} do not fit the outputs of {name}, {_shown(shape)}: give "
        "whole class numbers, or one number for each output."
    )


def _same_rank(y: Array, shape: tuple[int | None, ...]) -> bool:
    return y.ndim == len(shape) and (y.shape[-1] == shape[-1] or y.shape[-1] != 1)


def _is_one_hot(y: Array) -> bool:
    return bool(np.isin(np.unique(y), (0, 1)).all() and (y.sum(axis=-1) == 1).all())


def _fits(actual: tuple[int, ...], expected: tuple[int | None, ...]) -> bool:
    """Whether sizes are those that are expected, where these are known."""
    return len(actual) == len(expected) and all(
        want is None or have == want for have, want in zip(actual, expected, strict=True)
    )


def _check_labels(
    name: str, kind: Kind, shape: tuple[int | None, ...], width: int, y: Array, sparse: bool
) -> None:
    expected = shape[1:-1] if sparse else shape[1:]
    actual = y.shape[1:]
    if (sparse or width == 1) and len(actual) == len(shape) - 1 and actual[-1:] == (1,):
        actual = actual[:-1]
    if width == 1 and not sparse:
        expected = expected[:-1]
    if not _fits(actual, expected):
        raise DataError(
            f"Labels of shape {y.shape} do not fit the outputs of {name}, {_shown(shape)}: "
            f"{_MENDS[kind]}."
        )
    if kind == "regression" or not y.size:
        return
    low, high = float(y.min()), float(y.max())
    top = width - 1 if sparse else 1
    if low < 0 or high > top or (sparse and bool((y != np.round(y)).any())):
        raise DataError(
            f"Labels run from {low:g} to {high:g}, but {name} has {width} outputs: "
            + (f"number the classes from 0 to {top}." if sparse else "labels must be 0 or 1.")
        )


def _check_sparsity(name: str, loss: Any, sparse: bool, y: Array) -> None:
    wants = losses.wants_sparse(loss)
    if wants is not None and wants != sparse:
        form = "class numbers (n,)" if wants else "one-hot rows (n, classes)"
        raise DataError(
            f"The loss {type(loss).__name__} of {name} takes {form}, but the labels have shape "
            f"{y.shape}: convert the labels, or give another loss."
        )


_MENDS: dict[Kind, str] = {
    "binary": "give one 0 or 1 for each sample",
    "multiclass": "give class numbers (n,) or one-hot rows (n, classes)",
    "multilabel": "give a row of 0s and 1s, one for each output",
    "regression": "give as many numbers for each sample as the model has outputs",
}


def _shown(shape: tuple[int | None, ...]) -> str:
    return "(" + ", ".join("n" if size is None else str(size) for size in shape) + ")"
