"""Class weights, as sample weights that training, scores, fusions and the search all take."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

import keras
import numpy as np

from saikei.batches import Array, ArrayData
from saikei.checks import input_count
from saikei.data import gathered
from saikei.errors import InputError
from saikei.for_each_output import flat_weights
from saikei.scoring.inference import flat_labels, infer_tasks
from saikei.scoring.labels import Labels

ClassWeight: TypeAlias = Mapping[int, float] | Literal["balanced"]


def weigh_classes(
    model: keras.Model, data: Any, class_weight: ClassWeight, loss: Any = None
) -> tuple[Any, Any, Any]:
    """Data with sample weights by class.

    Args:
        model: Whose one output is of classes.
        data: `(x, y)` or `(x, y, sample_weight)` arrays, or a dataset, which is gathered; weights
            that are there are multiplied.
        class_weight: A weight for each class number, 1 for those that are not named; or
            `"balanced"`, which makes all classes count the same, with mean 1.
        loss: A Keras loss; `None` as for `saikei.fit`.

    Returns:
        `(x, y, sample_weight)`: one weight for each row, or for each position.

    Raises:
        InputError: When the output is not of classes, or the weights are no weights.
        DataError: When the data does not fit the model.
    """
    whole = gathered(data, inputs=input_count(model), as_is=False)
    tasks = infer_tasks(model, whole.y, loss)
    if len(tasks) != 1 or tasks[0].kind not in ("binary", "multiclass"):
        raise InputError(
            f"class_weight is for one output of classes, and model '{model.name}' has "
            f"{' and '.join(task.kind for task in tasks)}: give sample weights, (x, y, weights)."
        )
    (task,), (y,) = tasks, flat_labels(model, whole.y)
    known = task.known(y)
    classes = y if task.kind == "binary" or task.sparse else y.argmax(axis=-1)
    classes = np.where(known, classes, 0) if known is not None else classes
    classes = classes.round().astype(np.int64)
    count = 2 if task.kind == "binary" else task.outputs
    counted = classes if known is None else classes[known]
    weights = _table(class_weight, counted, count)[classes]
    if weights.ndim > 1 and weights.shape[-1] == 1:
        weights = weights[..., 0]
    (given,) = flat_weights(whole.weights, 1)
    if given is not None:
        weights = weights * Labels(weights, given).over(weights.shape)
    return whole.x, whole.y, weights.astype(np.float32)


def weighed(model: keras.Model, train: Any, class_weight: ClassWeight | None, loss: Any) -> Any:
    """What `fit` and `distill` train on: the data, with weights by class where there are some.

    Raises:
        InputError: As `weigh_classes` does, and for a dataset, which is not read into memory.
    """
    if class_weight is None:
        return train
    if not isinstance(train, (tuple, list, ArrayData)):
        raise InputError(
            "class_weight needs (x, y) arrays: let the dataset give (x, y, sample_weight), or "
            "gather it with saikei.scoring.weigh_classes(model, dataset, class_weight)."
        )
    return weigh_classes(model, train, class_weight, loss)


def _table(given: ClassWeight, classes: Array, count: int) -> Array:
    if given == "balanced":
        counts = np.bincount(classes.reshape(-1), minlength=count)
        present = counts > 0
        total = counts.sum() / max(1, int(present.sum()))
        return np.asarray(np.where(present, total / np.maximum(counts, 1), 1.0))
    table = np.ones(count)
    if not isinstance(given, Mapping):
        raise InputError(
            f"class_weight={given!r}: give 'balanced', or a dictionary such as {{0: 1.0, 1: 5.0}}."
        )
    for number, weight in given.items():
        if not 0 <= int(number) < count or not (np.isfinite(weight) and weight >= 0):
            raise InputError(
                f"class_weight={{{number}: {weight}}}: give finite weights of at least 0 for "
                f"classes from 0 to {count - 1}."
            )
        table[int(number)] = weight
    return table
