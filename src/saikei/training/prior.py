"""What nobody says: how often each label occurs."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np

from saikei.training.batches import Array
from saikei.training.task import Task


def prior_outputs(
    tasks: Sequence[Task], labels: Sequence[Array], outputs: Sequence[Array]
) -> tuple[Array, ...]:
    """What somebody would say who knows how often each label occurs, and nothing else.

    Args:
        tasks: what each output learns.
        labels: of each output.
        outputs: arrays of the shapes to give.

    Returns:
        For each output one constant for each index of its last axis: the mean of the labels, as
        the outputs are: numbers, probabilities or logits. They are read-only.
    """
    each = zip(tasks, labels, outputs, strict=True)
    return tuple(np.broadcast_to(_prior(task, y, part), part.shape) for task, y, part in each)


def _prior(task: Task, labels: Array, output: Array) -> Array:
    classes = output.shape[-1] if output.ndim > 1 else 1
    if task.kind == "multiclass" and task.sparse:
        mean = np.bincount(labels.reshape(-1).astype(np.int64), minlength=classes) / labels.size
    else:
        mean = labels.reshape(-1, classes).mean(axis=0, dtype=np.float64)
    if task.kind != "regression" and task.from_logits:
        p = np.clip(mean, keras.config.epsilon(), 1 - keras.config.epsilon())
        mean = np.log(p) if task.kind == "multiclass" else np.log(p) - np.log1p(-p)
    return np.asarray(mean if output.ndim > 1 else mean[0])
