"""How far outputs are from those of the original, in one unit for every kind of change."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from saikei.errors import DataError
from saikei.scoring import Task
from saikei.scoring.labels import Labels, row_importance
from saikei.scoring.links import log_probabilities
from saikei.scoring.score import standard_error
from saikei.search.library.library import Unit

Array = np.ndarray[Any, np.dtype[Any]]

# Numbers that are compared in float64 at once.
_BLOCK = 2**22


def unit_of(tasks: Sequence[Task]) -> Unit:
    """The unit of the divergence of a model whose outputs learn these tasks."""
    numbers = [task.kind == "regression" for task in tasks]
    if all(numbers):
        return "share of variance"
    return "nats and shares of variance" if any(numbers) else "nats"


def divergence(
    outputs: Sequence[Array],
    original: Sequence[Array],
    tasks: Sequence[Task],
    labels: Sequence[Labels] | None = None,
) -> tuple[float, float]:
    """The divergence of outputs from those of the original, and its standard error.

    For classes it is the Kullback-Leibler divergence from the original's probabilities to the new
    ones, in nats; for numbers the squared difference over the variance of the original's outputs.
    It is the mean over rows, or over what counts of them, and the sum over outputs.

    Args:
        outputs: One array `(n, …)` for each output of the changed model.
        original: The same of the original.
        tasks: What each output learns.
        labels: For each output what counts: rows, positions and classes that the loss leaves out,
            and sample weights, count here as they do in a score. `None` counts all the same.

    Raises:
        DataError: When outputs are NaN or infinite.
    """
    if labels is None:
        labels = [Labels(np.zeros(len(one))) for one in original]
    rows = np.zeros(len(original[0]))
    for new, old, task, own in zip(outputs, original, tasks, labels, strict=True):
        if not np.isfinite(new).all():
            raise DataError("The outputs hold NaN or infinite numbers.")
        rows += _each_row(new, old, task, own)
    value = float(rows.mean())
    importance = row_importance(labels)
    return value, float(standard_error(rows - value * importance))


def _each_row(new: Array, old: Array, task: Task, labels: Labels) -> Array:
    spread = _variance(old) if task.kind == "regression" else 1.0
    size = max(1, _BLOCK // max(1, int(np.prod(old.shape[1:]))))
    found = []
    for start in range(0, len(old), size):
        part = slice(start, start + size)
        each = _differences(_exact(new[part]), _exact(old[part]), task) / spread
        found.append(labels[part].mean(each))
    return np.concatenate(found)


def _differences(new: Array, old: Array, task: Task) -> Array:
    if task.kind == "regression":
        return np.asarray(np.square(new - old))
    if task.kind == "multiclass":
        p, q = log_probabilities(task, old), log_probabilities(task, new)
        return np.asarray(np.maximum((np.exp(p) * (p - q)).sum(axis=-1), 0.0))
    kl = 0.0
    for sign in (False, True):
        p, q = (log_probabilities(task, _turned(task, one, sign)) for one in (old, new))
        kl = kl + np.exp(p) * (p - q)
    return np.asarray(np.maximum(kl, 0.0))


def _turned(task: Task, outputs: Array, sign: bool) -> Array:
    """The same outputs, or those of the opposite class."""
    if not sign:
        return outputs
    return -outputs if task.from_logits else 1 - outputs


def _variance(old: Array) -> float:
    values = _exact(old)
    centred = np.square(values - values.mean(axis=0)).mean()
    return float(centred or np.square(values).mean() or 1.0)


def _exact(array: Array) -> Array:
    return np.asarray(array, dtype=np.float64)
