"""Labels in the shape that a task has them in, beside the predictions that they belong to."""

from __future__ import annotations

from typing import Any

import numpy as np

from saikei.batches import Array
from saikei.errors import DataError
from saikei.scoring.counted import Labels
from saikei.scoring.task import Task, labels_for


def labels_of(task: Task, prediction: Array, y: Any) -> Labels:
    """Labels in the shape that a task has them in, with what counts of them.

    Raises:
        DataError: when they do not fit the predictions.
    """
    given = labels_for(task, y)
    labels = given.values
    shape = prediction.shape[:-1] if task.kind == "multiclass" and task.sparse else prediction.shape
    if labels.size != int(np.prod(shape)) or len(labels) != len(prediction) or not labels.size:
        raise DataError(
            f"Labels of shape {labels.shape} do not fit predictions of shape {prediction.shape}: "
            "give the labels of the samples that were predicted."
        )
    if task.kind == "multiclass" and task.sparse:
        _check_classes(labels, prediction.shape[-1])
    return given.reshaped(shape)


def _check_classes(labels: Array, classes: int) -> None:
    if labels.min() < 0 or labels.max() >= classes:
        raise DataError(
            f"Labels run from {labels.min()} to {labels.max()}, but there are {classes} classes: "
            f"number them from 0 to {classes - 1}."
        )
