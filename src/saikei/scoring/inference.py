"""The task of each output of a model, from its last activation, its loss and the labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import keras
import numpy as np
from keras import tree

from saikei.batches import Array, as_numpy, own_labels
from saikei.errors import DataError, ModelError
from saikei.for_each_output import one_for_each
from saikei.graph import IgnoredClass, marks_of
from saikei.losses import as_loss, default_loss, describe_loss, takes_sparse
from saikei.scoring.outputs import Output, Outputs, read_outputs
from saikei.scoring.task import Kind, Task, check_finite_labels

# How far above 1 a row of probabilities may sum up, as in float16.
_SLACK = 1e-2


def infer_task(model: keras.Model, y: Any, loss: Any = None) -> Task:
    """The task of a model with one output, from its last activation and the labels.

    A loss that is given wins, then the one that the model is compiled with, then the output's
    activation: softmax is multiclass, sigmoid is binary or multilabel, or regression where
    labels are more than two different numbers. A linear output is multiclass from logits where
    labels are class numbers or one-hot rows, binary from logits where one unit meets whole-number
    labels of 0 and 1, and regression otherwise.

    Args:
        model: A built model.
        y: Labels: class numbers `(n,)`, one-hot or multilabel rows `(n, classes)`, or numbers
            of the output's shape.
        loss: A Keras loss or its name.

    Raises:
        DataError: When the labels do not fit the output.
        ModelError: When the model has several outputs (see `infer_tasks`), or no readable
            graph.
    """
    tasks = infer_tasks(model, y, loss)
    if len(tasks) != 1:
        raise ModelError(f"Model '{model.name}' has {len(tasks)} outputs: use infer_tasks.")
    return tasks[0]


def infer_tasks(
    model: keras.Model, y: Any, loss: Any = None, outputs: Outputs | None = None
) -> tuple[Task, ...]:
    """The task of each output of a model, flattened; see `infer_task` and `Inference`."""
    return Inference(model, loss, outputs).tasks(y)


class Inference:
    """The outputs and losses of a model, read once for labels that come in batches.

    Args:
        model: A built model.
        loss: A Keras loss or its name; `None` as for `infer_task`.
        outputs: The outputs of the model, where it was read already.
    """

    def __init__(
        self, model: keras.Model, loss: Any = None, outputs: Outputs | None = None
    ) -> None:
        self._outputs = read_outputs(model) if outputs is None else outputs
        self._model = model
        self._losses = losses_of(model, loss, len(self._outputs.each))
        self._marks = [one for one in marks_of(model) if isinstance(one, IgnoredClass)]

    def labels(self, y: Any) -> list[Array]:
        """The labels of each output, flattened; see `flat_labels`."""
        return flat_labels(self._model, y, self._outputs)

    def tasks(self, y: Any) -> tuple[Task, ...]:
        """The task of each output.

        Raises:
            DataError: When the labels do not fit an output.
        """
        labels, given = self.labels(y), self._losses
        model = f"model '{self._model.name}'"
        names = [f"output {i} of {model}" for i in range(len(given))]
        if len(given) == 1:
            names = [model]
        return tuple(
            _infer(name, output, array, one, _ignored(output, self._marks) if one is None else None)
            for name, output, array, one in zip(
                names, self._outputs.each, labels, given, strict=True
            )
        )


def flat_labels(model: keras.Model, y: Any, outputs: Outputs | None = None) -> list[Array]:
    """The labels of each output, in the order of the model's flattened outputs.

    Args:
        model: A built model.
        y: Labels, nested as the model nests its outputs, or by their names.
        outputs: The outputs of the model, where it was read already.

    Raises:
        DataError: When there are not as many label arrays as outputs, or their names differ.
    """
    return _flat_labels(model.name, outputs or read_outputs(model), own_labels(model, y))


def _flat_labels(name: str, outputs: Outputs, y: Any) -> list[Array]:
    structure, count = outputs.structure, len(outputs.each)
    if isinstance(y, dict) != isinstance(structure, dict) and (count > 1 or isinstance(y, dict)):
        expected = sorted(structure) if isinstance(structure, dict) else f"a list of {count}"
        raise DataError(
            f"Labels come as a {type(y).__name__}, but model '{name}' gives {expected}: nest the "
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
    flat = one_for_each(list(tree.flatten(given)), count, "losses")
    return [as_loss(one) for one in flat]


def _ignored(output: Output, marks: Sequence[IgnoredClass]) -> int | None:
    """The class that the loss of a model that this one was made from leaves out of such outputs."""
    found = {one.number for one in marks if one.classes in (None, output.shape[-1])}
    return found.pop() if len(found) == 1 else None


def _infer(name: str, output: Output, y: Array, loss: Any, ignored: int | None) -> Task:
    shape, activation = output.shape, output.activation
    width = shape[-1] if len(shape) > 1 and shape[-1] is not None else 1
    check_finite_labels(name, loss, shape, y)
    known = describe_loss(loss)
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
    task = Task(
        kind=kind,
        loss=loss if loss is not None else default_loss(kind, sparse, from_logits, ignored),
        metric=_METRICS[kind],
        from_logits=kind != "regression" and from_logits,
        sparse=sparse,
        outputs=width,
    )
    _check_labels(name, kind, shape, width, y, task)
    _check_sparsity(name, loss, sparse, y)
    return task


_METRICS: dict[Kind, Literal["accuracy", "binary_accuracy", "mse"]] = {
    "binary": "accuracy",
    "multiclass": "accuracy",
    "multilabel": "binary_accuracy",
    "regression": "mse",
}


def _kind(name: str, shape: tuple[int | None, ...], width: int, activation: str, y: Array) -> Kind:
    if activation in ("softmax", "log_softmax"):
        return "multiclass"
    if activation in ("sigmoid", "log_sigmoid") and _are_numbers(y):
        return "regression"
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


def _are_numbers(y: Array) -> bool:
    """Whether labels are more than two different numbers, so that they are no yes and no.

    Two of them may well be a 0 and a 1 that were smoothed.
    """
    some = y.reshape(-1)[:100_000]
    return y.dtype.kind == "f" and len(np.unique(some[np.isfinite(some)])) > 2


def _same_rank(y: Array, shape: tuple[int | None, ...]) -> bool:
    return y.ndim == len(shape) and (y.shape[-1] == shape[-1] or y.shape[-1] != 1)


def _is_one_hot(y: Array) -> bool:
    return bool(np.isin(np.unique(y), (0, 1)).all() and (y.sum(axis=-1) == 1).all())


def _fits(actual: tuple[int, ...], expected: tuple[int | None, ...]) -> bool:
    """Whether sizes are those that are expected, where these are known."""
    return len(actual) == len(expected) and all(
        size is None or have == size for have, size in zip(actual, expected, strict=True)
    )


def _check_labels(
    name: str, kind: Kind, shape: tuple[int | None, ...], width: int, y: Array, task: Task
) -> None:
    sparse = task.sparse
    expected = shape[1:-1] if sparse else shape[1:]
    actual = y.shape[1:]
    if (sparse or width == 1) and len(actual) == len(shape) - 1 and actual[-1:] == (1,):
        actual = actual[:-1]
    if width == 1 and not sparse:
        expected = expected[:-1]
    if not _fits(actual, expected):
        raise DataError(
            f"Labels of shape {y.shape} do not fit the outputs of {name}, {_shown(shape)}: "
            f"{_FIXES[kind]}."
        )
    known = task.known(y)
    y = y if known is None else y[known]
    if kind == "regression" or not y.size:
        return
    if kind == "multiclass" and not sparse and describe_loss(task.loss) is not None:
        _check_one_class(name, y, width)
    low, high = float(y.min()), float(y.max())
    top = width - 1 if sparse else 1
    if low < 0 or high > top or (sparse and bool((y != np.round(y)).any())):
        raise DataError(
            f"Labels run from {low:g} to {high:g}, but {name} has {width} outputs: "
            + (_numbering(top, high if high > top else low) if sparse else "labels must be 0 or 1.")
        )


def _check_one_class(name: str, y: Array, width: int) -> None:
    """Rows of several classes, under outputs of which one is right. None at all is no label."""
    most = float(y.reshape(-1, width).sum(axis=-1, dtype=np.float64).max())
    if most > 1 + _SLACK:
        raise DataError(
            f"Labels of {name} have rows that sum up to {most:g}, several classes at once, but its "
            "outputs are one class of several: give one-hot rows, or end the model in a sigmoid."
        )


def _numbering(top: int, odd: float) -> str:
    return (
        f"number the classes from 0 to {top}, or, if {odd:g} marks what has no label, compile "
        f"with keras.losses.SparseCategoricalCrossentropy(ignore_class={odd:g})."
    )


def _check_sparsity(name: str, loss: Any, sparse: bool, y: Array) -> None:
    takes = takes_sparse(loss)
    if takes is not None and takes != sparse:
        form = "class numbers (n,)" if takes else "one-hot rows (n, classes)"
        raise DataError(
            f"The loss {type(loss).__name__} of {name} takes {form}, but the labels have shape "
            f"{y.shape}: convert the labels, or give another loss."
        )


_FIXES: dict[Kind, str] = {
    "binary": "give one 0 or 1 for each sample",
    "multiclass": "give class numbers (n,) or one-hot rows (n, classes)",
    "multilabel": "give a row of 0s and 1s, one for each output",
    "regression": "give as many numbers for each sample as the model has outputs",
}


def _shown(shape: tuple[int | None, ...]) -> str:
    return "(" + ", ".join("n" if size is None else str(size) for size in shape) + ")"
