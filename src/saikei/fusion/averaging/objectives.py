"""What the weights of an average are fitted to: the loss of an average as a function of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import keras
import numpy as np
from scipy import special

from saikei.errors import DataError
from saikei.fusion.averaging.simplex import Array, ValueAndGradient
from saikei.training.task import Task


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
        scale: how many outputs the loss is summed over.
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


Loss: TypeAlias = Squares | Mixture | Convex


def loss_of(tasks: Sequence[Task], members: Sequence[Sequence[Array]], y: Sequence[Any]) -> Loss:
    """The loss of an average of predictions, summed over outputs, as a function of its weights.

    Args:
        tasks: what each output learns.
        members: for each member, its predictions of each output, `(n, …, outputs)`, float64.
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
        total = float(len(happened))
        each = [probabilities for probabilities, _ in happened]
        return Mixture(
            each[0] if len(each) == 1 else np.concatenate(each),
            np.concatenate([importance / total for _, importance in happened]),
            total,
        )
    return Convex(_summed([_objective(*part) for part in stacked]), len(members))


def labels_of(task: Task, prediction: Array, y: Any) -> Array:
    """Labels in the shape that a task has them in.

    Raises:
        DataError: when they do not fit the predictions.
    """
    labels = np.asarray(y)
    shape = prediction.shape[:-1] if task.kind == "multiclass" and task.sparse else prediction.shape
    if labels.size != int(np.prod(shape)) or len(labels) != len(prediction) or not labels.size:
        raise DataError(
            f"Labels of shape {labels.shape} do not fit predictions of shape {prediction.shape}: "
            "give the labels of the samples that were predicted."
        )
    if task.kind == "multiclass" and task.sparse:
        _check_classes(labels, prediction.shape[-1])
    return labels.reshape(shape)


def _check_classes(labels: Array, classes: int) -> None:
    if labels.min() < 0 or labels.max() >= classes:
        raise DataError(
            f"Labels run from {labels.min()} to {labels.max()}, but there are {classes} classes: "
            f"number them from 0 to {classes - 1}."
        )


def _residuals(members: Sequence[Array], labels: Array) -> Array:
    """`(rows, members)`: one row for each number that is predicted."""
    return np.stack([(member - labels).reshape(-1) for member in members], axis=1)


def _outcomes(task: Task, members: Sequence[Array], labels: Array) -> tuple[Array, Array]:
    """What each member gave to what happened, `(rows, members)`, and each row's share of the loss.

    A row is an outcome with a share of the label: one for a sample of a sparse label, one for
    each label of a multilabel sample, several for soft labels.
    """
    if task.kind == "multiclass" and task.sparse:
        chosen = _of_true_class(members, labels)
        np.clip(chosen, *_clip(), out=chosen)
        return chosen.T, np.full(chosen.shape[1], 1.0 / chosen.shape[1])
    p = np.clip(np.stack(members), *_clip())
    if task.kind == "multiclass":
        importance = labels.reshape(-1) / np.prod(labels.shape[:-1])
        rows = p.reshape(len(p), -1).T
    else:
        importance = np.concatenate([labels.reshape(-1), 1.0 - labels.reshape(-1)]) / labels.size
        flat = p.reshape(len(p), -1).T
        rows = np.concatenate([flat, 1.0 - flat])
    happened = importance > 0
    return rows[happened], importance[happened] / importance.sum()


def _of_true_class(members: Sequence[Array], labels: Array) -> Array:
    """`(members, rows)`: of each row only the one number counts."""
    classes = members[0].shape[-1]
    truth = labels.reshape(-1).astype(np.int64)
    places = np.arange(len(truth)) * classes + truth
    chosen = np.empty((len(members), len(truth)))
    for member, into in zip(members, chosen, strict=True):
        np.take(member.reshape(-1), places, out=into, mode="clip")  # labels_of has checked them
    return chosen


def _clip() -> tuple[float, float]:
    return keras.config.epsilon(), 1.0 - keras.config.epsilon()


def _objective(task: Task, members: Sequence[Array], labels: Array) -> ValueAndGradient:
    if task.kind == "regression":
        residuals = _residuals(members, labels)

        def squared(weights: Array) -> tuple[float, Array]:
            mixed = residuals @ weights
            return float(np.mean(mixed**2)), 2.0 * residuals.T @ mixed / len(mixed)

        return squared
    if task.from_logits:
        return _logit_loss(task, np.stack(members), labels)
    rows, importance = _outcomes(task, members, labels)

    def mixture(weights: Array) -> tuple[float, Array]:
        mixed = rows @ weights
        return -float(importance @ np.log(mixed)), -(importance / mixed) @ rows

    return mixture


def _logit_loss(task: Task, logits: Array, labels: Array) -> ValueAndGradient:
    """Log-loss of averaged logits: convex too, as a log-sum-exp of something linear."""
    if task.kind == "multiclass":
        classes = logits.shape[-1]
        truth = np.eye(classes)[labels.astype(int)] if task.sparse else labels
    else:
        logits = np.stack([np.zeros_like(logits), logits], axis=-1)
        truth = np.stack([1.0 - labels, labels], axis=-1)
    classes = logits.shape[-1]
    z, t = logits.reshape(len(logits), -1, classes), truth.reshape(-1, classes)

    def loss(weights: Array) -> tuple[float, Array]:
        mixed = np.tensordot(weights, z, axes=1)
        log_p = special.log_softmax(mixed, axis=-1)
        gradient = np.tensordot(z, np.exp(log_p) * t.sum(-1, keepdims=True) - t, axes=2) / len(t)
        return -float((t * log_p).sum() / len(t)), gradient

    return loss


def _summed(objectives: Sequence[ValueAndGradient]) -> ValueAndGradient:
    def total(weights: Array) -> tuple[float, Array]:
        values, gradients = zip(*(objective(weights) for objective in objectives), strict=True)
        return float(sum(values)), np.sum(gradients, axis=0)

    return total
