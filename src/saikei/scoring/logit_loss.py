"""The log-loss of a weighted sum of logits, as a function of its weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

import numpy as np
from scipy import special

from saikei.batches import Array
from saikei.scoring.labels import Labels
from saikei.scoring.task import Task

ValueAndGradient: TypeAlias = Callable[[Array], tuple[float, Array]]

# Logits that are processed together.
_BLOCK = 1 << 22


def logit_loss(task: Task, members: Sequence[Array], labels: Labels) -> ValueAndGradient:
    """Log-loss of a weighted sum of logits: convex, as a log-sum-exp of something linear.

    Args:
        task: What the output learns: classes or labels.
        members: The logits of each member, `(n, …, outputs)`.
        labels: The labels of the same rows, in the shape that the task has them in.

    Returns:
        A function of one weight for each member that gives the mean loss (nats) and its gradient.
    """
    counts = labels.over(labels.values.shape) * labels.scale
    each = max(1, int(np.prod(members[0].shape[1:]))) * len(members)
    size, count = max(1, _BLOCK // each), len(labels)

    def blocks() -> Iterator[tuple[Array, Array]]:
        for start in range(0, count, size):
            rows = slice(start, start + size)
            z = np.stack([np.asarray(member[rows], dtype=np.float64) for member in members])
            yield _as_classes(task, z, labels.values[rows], counts[rows])

    kept = list(blocks()) if size >= count else None

    def loss(weights: Array) -> tuple[float, Array]:
        value, gradient, total = 0.0, np.zeros(len(members)), 0
        for z, t in blocks() if kept is None else kept:
            log_p = special.log_softmax(np.tensordot(weights, z, axes=1), axis=-1)
            off = np.exp(log_p) * t.sum(-1, keepdims=True) - t
            value -= float((t * log_p).sum())
            gradient += np.tensordot(z, off, axes=2)
            total += len(t)
        return value / total, gradient / total

    return loss


def _as_classes(task: Task, z: Array, y: Array, counts: Array) -> tuple[Array, Array]:
    """Logits of exclusive classes `(members, rows, classes)`, and what is true of each row."""
    if task.kind == "multiclass":
        classes = z.shape[-1]
        truth = np.eye(classes)[y.astype(int)] if task.sparse else y
        own = counts[..., None] if task.sparse else counts
    else:
        z = np.stack([np.zeros_like(z), z], axis=-1)
        truth, own = np.stack([1.0 - y, y], axis=-1), counts[..., None]
    classes = z.shape[-1]
    return z.reshape(len(z), -1, classes), (truth * own).reshape(-1, classes)
