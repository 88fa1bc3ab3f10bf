"""The loss of an average as a function of its weights, to which they are fitted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from saikei.batches import Array
from saikei.scoring.labels import Labels
from saikei.scoring.links import clipped
from saikei.scoring.logit_loss import ValueAndGradient, logit_loss
from saikei.scoring.task import Task, labels_of


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
        probabilities: p, `(rows, members)`: each member's probability of the true label.
        importance: a, `(rows,)`, with sum 1.
        scale: The number of outputs that the loss is summed over, times the mean weight of a label.
    """

    probabilities: Array
    importance: Array
    scale: float


@dataclass(frozen=True)
class Convex:
    """Any other convex loss.

    Args:
        objective: Its value and gradient at given weights.
        members: The number of weights.
    """

    objective: ValueAndGradient
    members: int


Loss: TypeAlias = Squares | Mixture | Convex


def loss_of(tasks: Sequence[Task], members: Sequence[Sequence[Array]], y: Sequence[Any]) -> Loss:
    """The loss of an average of predictions, summed over outputs, as a function of its weights.

    Args:
        tasks: What each output learns.
        members: For each member, its predictions of each output, `(n, …, outputs)`.
        y: Labels of each output.

    Raises:
        DataError: When the labels do not fit the predictions.
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


def _residuals(members: Sequence[Array], labels: Labels) -> Array:
    """`(rows, members)`: one row for each predicted number, times the root of its weight."""
    found = np.stack(
        [(member.astype(np.float64) - labels.values).reshape(-1) for member in members], axis=1
    )
    if labels.importance is None and labels.scale == 1.0:
        return found
    counts = labels.over(labels.values.shape).reshape(-1) * labels.scale
    return np.asarray(found * np.sqrt(counts)[:, None])


def _outcomes(task: Task, members: Sequence[Array], labels: Labels) -> tuple[Array, Array]:
    """Each member's probability of the true labels, `(rows, members)`, and each row's weight.

    A sample has one row for a class number, one for each label of several, and one for each class
    of a soft label. Rows of weight 0 are left out.
    """
    y = labels.values
    if task.kind == "multiclass" and task.sparse:
        chosen = _of_true_class(members, y)
        clipped(chosen, out=chosen)
        rows, importance = chosen.T, np.full(chosen.shape[1], 1.0 / chosen.shape[1])
    else:
        p = clipped(np.stack(members).astype(np.float64))
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
    """The probability of the true class, `(members, rows)`."""
    classes = members[0].shape[-1]
    truth = labels.reshape(-1).astype(np.int64)
    indices = np.arange(len(truth)) * classes + truth
    return np.stack([member.reshape(-1)[indices].astype(np.float64) for member in members])


def _objective(task: Task, members: Sequence[Array], labels: Labels) -> ValueAndGradient:
    if task.kind == "regression":
        residuals = _residuals(members, labels)

        def squared(weights: Array) -> tuple[float, Array]:
            mixed = residuals @ weights
            return float(np.mean(mixed**2)), 2.0 * residuals.T @ mixed / len(mixed)

        return squared
    if task.from_logits:
        return logit_loss(task, members, labels)
    rows, importance = _outcomes(task, members, labels)

    def mixture(weights: Array) -> tuple[float, Array]:
        mixed = rows @ weights
        return -float(importance @ np.log(mixed)), -(importance / mixed) @ rows

    return mixture


def _summed(objectives: Sequence[ValueAndGradient]) -> ValueAndGradient:
    def total(weights: Array) -> tuple[float, Array]:
        values, gradients = zip(*(objective(weights) for objective in objectives), strict=True)
        return float(sum(values)), np.sum(gradients, axis=0)

    return total
