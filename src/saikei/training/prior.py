"""What nobody says: how often each label occurs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from saikei.training.batches import Array
from saikei.training.task import Task, labels_for


def prior_outputs(
    tasks: Sequence[Task], labels: Sequence[Any], outputs: Sequence[Array]
) -> tuple[Array, ...]:
    """What somebody would say who knows how often each label occurs, and nothing else.

    Args:
        tasks: what each output learns.
        labels: of each output, arrays or `Labels`.
        outputs: arrays of the shapes to give.

    Returns:
        For each output one constant for each index of its last axis: the mean of the labels, as
        the outputs are: numbers, probabilities or logits. They are read-only.
    """
    each = zip(tasks, labels, outputs, strict=True)
    return tuple(np.broadcast_to(_prior(task, y, part), part.shape) for task, y, part in each)


def _prior(task: Task, given: Any, output: Array) -> Array:
    classes = output.shape[-1] if output.ndim > 1 else 1
    labels = labels_for(task, given)
    y, counts = labels.values, labels.over(labels.values.shape)
    if task.kind == "multiclass" and task.sparse:
        numbers = y.reshape(-1).astype(np.int64)
        mean = np.bincount(numbers, weights=counts.reshape(-1), minlength=classes) / counts.sum()
    else:
        shares = counts.reshape(-1, classes)
        total = np.maximum(shares.sum(axis=0), np.finfo(np.float64).tiny)
        mean = (y.reshape(-1, classes) * shares).sum(axis=0) / total
    if task.kind != "regression" and task.from_logits:
        p = np.clip(mean, keras.config.epsilon(), 1 - keras.config.epsilon())
        mean = np.log(p) if task.kind == "multiclass" else np.log(p) - np.log1p(-p)
    return np.asarray(mean if output.ndim > 1 else mean[0])
