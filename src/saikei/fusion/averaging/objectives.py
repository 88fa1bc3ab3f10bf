"""What the weights of an average are fitted to: the loss of an average as a function of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import keras
import numpy as np
from scipy import special

from saikei.errors import DataError
from saikei.fusion.averaging.simplex import Array, ValueAndGradient
from saikei.training.counted import Labels
from saikei.training.task import Task, labels_for


@dataclass(frozen=True)
class Squares:
    """A mean of squares, of the weighted mean of the members' residuals.

    Args:
        residuals: `(rows, members)`, one row for each number that is predicted.
    """

    residuals: Array


@dataclass(frozen=True)
class Mixture:
    """The log-loss of a mixture of probabilities, `-scale · Σᵢ aᵢ log(pᵢ·w)`.

    Args:
        probabilities: p, `(rows, members)`: what each member gives to what happened.
        importance: a, `(rows,)`, with sum 1.
        scale: how many outputs the loss is summed over, times what their labels count.
    """

    probabilities: Array
    importance: Array
    scale: float


@dataclass(frozen=True)
class Convex:
    """Any other convex loss.

    Args:
        objective: its value and gradient at given weights.
        members: how many weights.
    """

    objective: ValueAndGradient
    members: int


# Numbers of logits that are looked at together.
_BLOCK = 1 << 22

Loss: TypeAlias = Squares | Mixture | Convex


def loss_of(tasks: Sequence[Task], members: Sequence[Sequence[Array]], y: Sequence[Any]) -> Loss:
    """The loss of an average of predictions, summed over outputs, as a function of its weights.

    Args:
        tasks: what each output learns.
        members: for each member, its predictions of each output, `(n, …, outputs)`.
        y: labels of each output.

    Raises:
        DataError: when the labels do not fit the predictions.
    """
    stacked = [
        (task, [member[i] for member in members], labels_of(task, members[0][i], y[i]))
        for i, task in enumerate(tasks)
    ]
    if all(task.kind == "regression" for task in tasks):
        # A sum over outputs of means is a mean over rows that are scaled to the same total.
        parts = [_residuals(p, labels) for _, p, labels in stacked]
        rows = sum(len(part) for part in parts)
        return Squares(np.concatenate([part * np.sqrt(rows / len(part)) for part in parts]))
    if all(task.kind != "regression" and not task.from_logits for task in tasks):
        happened = [_outcomes(*part) for part in stacked]
        total = float(sum(importance.sum() for _, importance in happened))
        each = [probabilities for probabilities, _ in happened]
        return Mixture(
            each[0] if len(each) == 1 else np.concatenate(each),
            np.concatenate([importance / total for _, importance in happened]),
            total,
        )
    return Convex(_summed([_objective(*part) for part in stacked]), len(members))


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


def _residuals(members: Sequence[Array], labels: Labels) -> Array:
    """`(rows, members)`: one row for each number that is predicted, as much as it counts."""
    found = np.stack(
        [(member.astype(np.float64) - labels.values).reshape(-1) for member in members], axis=1
    )
    if labels.importance is None and labels.scale == 1.0:
        return found
    counts = labels.over(labels.values.shape).reshape(-1) * labels.scale
    return np.asarray(found * np.sqrt(counts)[:, None])


def _outcomes(task: Task, members: Sequence[Array], labels: Labels) -> tuple[Array, Array]:
    """What each member gave to what happened, `(rows, members)`, and each row's share of the loss.

    A row is an outcome with a share of the label: one for a sample of a sparse label, one for
    each label of a multilabel sample, several for soft labels. What does not count is left out.
    """
    y = labels.values
    if task.kind == "multiclass" and task.sparse:
        chosen = _of_true_class(members, y)
        np.clip(chosen, *_clip(), out=chosen)
        rows, importance = chosen.T, np.full(chosen.shape[1], 1.0 / chosen.shape[1])
    else:
        p = np.clip(np.stack(members).astype(np.float64), *_clip())
        rows = p.reshape(len(p), -1).T
        if task.kind == "multiclass":
            importance = y.reshape(-1) / np.prod(y.shape[:-1])
        else:
            importance = np.concatenate([y.reshape(-1), 1.0 - y.reshape(-1)]) / y.size
            rows = np.concatenate([rows, 1.0 - rows])
        # All rows of the only class there is may be 0.
        importance = importance / max(float(importance.sum()), float(np.finfo(np.float64).tiny))
    if labels.importance is not None or labels.scale != 1.0:
        counts = labels.over(y.shape).reshape(-1) * labels.scale
        importance = importance * np.tile(counts, len(importance) // len(counts))
    happened = importance > 0
    if happened.all():
        return rows, importance
    return rows[happened], importance[happened]


def _of_true_class(members: Sequence[Array], labels: Array) -> Array:
    """`(members, rows)`: of each row only the one number counts."""
    classes = members[0].shape[-1]
    truth = labels.reshape(-1).astype(np.int64)
    places = np.arange(len(truth)) * classes + truth
    return np.stack([member.reshape(-1)[places].astype(np.float64) for member in members])


def _clip() -> tuple[float, float]:
    return keras.config.epsilon(), 1.0 - keras.config.epsilon()


def _objective(task: Task, members: Sequence[Array], labels: Labels) -> ValueAndGradient:
    if task.kind == "regression":
        residuals = _residuals(members, labels)

        def squared(weights: Array) -> tuple[float, Array]:
            mixed = residuals @ weights
            return float(np.mean(mixed**2)), 2.0 * residuals.T @ mixed / len(mixed)

        return squared
    if task.from_logits:
        return _logit_loss(task, members, labels)
    rows, importance = _outcomes(task, members, labels)

    def mixture(weights: Array) -> tuple[float, Array]:
        mixed = rows @ weights
        return -float(importance @ np.log(mixed)), -(importance / mixed) @ rows

    return mixture


def _logit_loss(task: Task, members: Sequence[Array], labels: Labels) -> ValueAndGradient:
    """Log-loss of averaged logits: convex too, as a log-sum-exp of something linear."""
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


def _summed(objectives: Sequence[ValueAndGradient]) -> ValueAndGradient:
    def total(weights: Array) -> tuple[float, Array]:
        values, gradients = zip(*(objective(weights) for objective in objectives), strict=True)
        return float(sum(values)), np.sum(gradients, axis=0)

    return total
