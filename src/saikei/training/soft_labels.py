"""Labels as rows of shares, so that they can be smoothed and mixed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import keras
import numpy as np
from keras import tree

from saikei.batches import Array, ArrayData
from saikei.errors import InputError
from saikei.losses import default_loss, describe_loss
from saikei.scoring.inference import flat_labels
from saikei.scoring.outputs import read_outputs
from saikei.scoring.task import Task
from saikei.training.parts import TrainingSettings
from saikei.training.prepared import Prepared


def softened(model: keras.Model, ready: Prepared, settings: TrainingSettings) -> Prepared:
    """The data and tasks of a training with label smoothing or mixup.

    Class numbers become one-hot rows, and the loss becomes the one for such rows, which gives the
    same numbers. Labels for validation are not smoothed.

    Args:
        model: The model that is trained.
        ready: The data as it was given.
        settings: How the model is trained.

    Returns:
        The data with other labels and tasks; the same object without smoothing and mixup.

    Raises:
        InputError: If the data or the loss does not allow it, naming the setting.
    """
    if not (settings.label_smoothing or settings.mixup):
        return ready
    obstacles = soft_obstacles(ready.arrays, ready.validation, ready.tasks)
    for name, reason in obstacles.items():
        if getattr(settings, name):
            raise InputError(f"{name}={getattr(settings, name):g} {reason}: set it to 0.")
    assert ready.arrays is not None
    arrays, validation = ready.arrays, ready.validation
    if arrays.y is not None:
        arrays = replace(arrays, y=_labels(model, ready, arrays.y, settings.label_smoothing))
    if isinstance(validation, ArrayData):
        validation = replace(validation, y=_labels(model, ready, validation.y, 0.0))
    tasks = tuple(
        replace(task, loss=default_loss(task.kind, False, task.from_logits), sparse=False)
        if task.sparse
        else task
        for task in ready.tasks
    )
    return replace(ready, arrays=arrays, validation=validation, tasks=tasks, mixup=settings.mixup)


def soft_obstacles(
    arrays: ArrayData | None, validation: ArrayData | Any, tasks: Sequence[Task]
) -> dict[str, str]:
    """Why labels cannot be smoothed, or rows cannot be mixed.

    Args:
        arrays: The training data; `None` for a dataset.
        validation: Arrays, a dataset, or `None`.
        tasks: What each output learns.

    Returns:
        For each of `"label_smoothing"` and `"mixup"` that is not possible the reason, to follow
        the name in a sentence.
    """
    sparse = any(task.sparse for task in tasks)
    reason = None
    if arrays is None:
        reason = "needs training data that is given as arrays"
    elif any(describe_loss(task.loss) is None for task in tasks):
        reason = "needs a loss of Keras, and the model has one of its own"
    elif any(task.ignored is not None for task in tasks):
        reason = "cannot be used with a loss that ignores a class"
    elif sparse and validation is not None and not isinstance(validation, ArrayData):
        reason = "needs validation data that is given as arrays"
    if reason is not None:
        return {"label_smoothing": reason, "mixup": reason}
    assert arrays is not None
    kinds = {np.asarray(leaf).dtype.kind for leaf in tree.flatten(arrays.x)}
    return {} if kinds == {"f"} else {"mixup": "needs inputs that are arrays of floats"}


def _labels(model: keras.Model, ready: Prepared, y: Any, smoothing: float) -> Any:
    outputs = read_outputs(model)
    soft = [
        _soft(task, labels, smoothing)
        for task, labels in zip(ready.tasks, flat_labels(model, y), strict=True)
    ]
    # A list of one array would be taken for an array of one row.
    alone = isinstance(outputs.structure, list) and len(soft) == 1
    return soft[0] if alone else outputs.pack(soft)


def _soft(task: Task, labels: Array, smoothing: float) -> Array:
    if task.sparse:
        classes = labels[..., 0] if labels.ndim > 1 and labels.shape[-1] == 1 else labels
        labels = np.eye(task.outputs, dtype="float32")[classes.astype(np.int64)]
    labels = labels.astype("float32")
    if task.kind == "regression":
        return labels
    even = 1 / task.outputs if task.kind == "multiclass" else 0.5
    return np.asarray((1 - smoothing) * labels + smoothing * np.float32(even), dtype="float32")
