"""What nobody says: how often each label occurs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from saikei.batches import Array
from saikei.scoring.score import sample_losses
from saikei.scoring.task import Task, labels_for


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


def least_losses(tasks: Sequence[Task], labels: Sequence[Any]) -> float:
    """The mean loss of outputs that are equal to the labels, summed over the outputs.

    It is 0 for class numbers and for numbers, and the entropy of labels that are probabilities,
    such as a teacher's predictions.

    Args:
        tasks: what each output learns.
        labels: of each output, arrays or `Labels`.
    """
    least = 0.0
    for task, given in zip(tasks, labels, strict=True):
        if not task.sparse:
            perfect = _as_outputs(task, np.asarray(labels_for(task, given).values, dtype=float))
            least += float(sample_losses(task, given, perfect).mean())
    return least


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
    constant = _as_outputs(task, mean)
    return np.asarray(constant if output.ndim > 1 else constant[0])


def _as_outputs(task: Task, labels: Array) -> Array:
    """Labels that are numbers or probabilities, in the form of the task's outputs."""
    if task.kind == "regression" or not task.from_logits:
        return labels
    p = np.clip(labels, keras.config.epsilon(), 1 - keras.config.epsilon())
    return np.asarray(np.log(p) if task.kind == "multiclass" else np.log(p) - np.log1p(-p))
