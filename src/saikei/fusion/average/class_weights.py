"""Weights of an average for each class: one point of the simplex for each.

Without a softmax there is one convex problem for each column. Averaged logits under a softmax are
one convex problem in all weights together. A mean of probabilities with weights for each class
does not sum to 1, so it is divided by its sum; that is not convex, and the result is a local
minimum, not worse than the best shared weights, where the descent starts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy import special

from saikei.codec import ToDict
from saikei.fusion.average.simplex import Array, line_search
from saikei.fusion.average.weights import finite, fit_weights
from saikei.scoring.labels import Labels
from saikei.scoring.links import clipped
from saikei.scoring.task import Task, labels_of

_STEPS = 1000
_TINY_GAP = 1e-7

Objective = Callable[[Array], tuple[float, Array]]


@dataclass(frozen=True)
class ClassWeights(ToDict):
    """Weights for each class, and how good they are.

    Args:
        values: Nested by output, class and member: weights of at least 0, with sum 1 over the
            members.
        loss: Mean log-loss (nats) or squared error on the data of the fit, summed over outputs.
        shared_loss: The loss with the best weights that all classes share.
        gap: A bound: no weights have a loss lower than `loss - gap`; `None` where the problem is
            not convex, so that there is no bound.
    """

    values: tuple[tuple[tuple[float, ...], ...], ...]
    loss: float
    shared_loss: float
    gap: float | None


def fit_class_weights(
    tasks: Sequence[Task], predictions: Sequence[Sequence[Any]], y: Sequence[Any]
) -> ClassWeights:
    """Find weights for each class that lower the loss of the average; deterministic.

    Args:
        tasks: What each output learns.
        predictions: For each member, `(n, …, outputs)` of each output.
        y: Labels of each output.

    Raises:
        FusionError: When there are fewer than two members.
        DataError: When predictions are not finite, or do not fit each other or the labels.
    """
    members = [finite(member, number) for number, member in enumerate(predictions, start=1)]
    found = []
    for index, task in enumerate(tasks):
        parts = [member[index] for member in members]
        labels = labels_of(task, parts[0], y[index])
        found.append((_by_column if task.kind != "multiclass" else _together)(task, parts, labels))
    gaps = [one.gap for one in found]
    return ClassWeights(
        values=tuple(one.values[0] for one in found),
        loss=sum(one.loss for one in found),
        shared_loss=sum(one.shared_loss for one in found),
        gap=None if any(gap is None for gap in gaps) else sum(gap for gap in gaps if gap),
    )


def _by_column(task: Task, parts: Sequence[Array], labels: Labels) -> ClassWeights:
    one = replace(task, kind="binary" if task.kind == "multilabel" else task.kind, outputs=1)
    shared = fit_weights(task, parts, labels).loss
    fitted = [
        fit_weights(one, [part[..., [c]] for part in parts], _column(labels, c))
        for c in range(parts[0].shape[-1])
    ]
    values = tuple(column.values for column in fitted)
    loss, gap = (float(np.mean([getattr(f, name) for f in fitted])) for name in ("loss", "gap"))
    return ClassWeights((values,), loss, shared, gap)


def _column(labels: Labels, c: int) -> Labels:
    """The labels of one class, with their weights."""
    values, importance = labels.values[..., [c]], labels.importance
    if importance is not None and importance.shape == labels.values.shape:
        importance = importance[..., [c]]
    return replace(labels, values=values, importance=importance)


def _together(task: Task, parts: Sequence[Array], labels: Labels) -> ClassWeights:
    classes = parts[0].shape[-1]
    predictions = np.stack(parts, axis=-1).astype(np.float64).reshape(-1, classes, len(parts))
    truth = np.eye(classes)[labels.values.astype(int)] if task.sparse else labels.values
    truth = truth * labels.over(truth.shape) * labels.scale
    truth = truth.reshape(-1, classes) / len(predictions)
    shared = fit_weights(task, parts, labels)
    if task.from_logits:
        objective = _of_logits(predictions, truth)
    else:
        objective = _of_probabilities(clipped(predictions), truth)
    start = np.tile(np.array(shared.values), (classes, 1))
    weights, loss, gap = _descend(objective, start)
    values = tuple(tuple(float(weight) for weight in row) for row in weights)
    return ClassWeights((values,), loss, objective(start)[0], gap if task.from_logits else None)


def _of_logits(predictions: Array, truth: Array) -> Objective:
    """Log-loss of `softmax_c(Σ_m w_cm z_m(c))`; truth is times the weight of each row."""

    def loss(weights: Array) -> tuple[float, Array]:
        log_p = special.log_softmax(np.einsum("ncm,cm->nc", predictions, weights), axis=1)
        off = np.exp(log_p) * truth.sum(axis=1, keepdims=True) - truth
        return -float((truth * log_p).sum()), np.einsum("nc,ncm->cm", off, predictions)

    return loss


def _of_probabilities(predictions: Array, truth: Array) -> Objective:
    """Log-loss of `Σ_m w_cm p_m(c)`, divided by its sum over the classes."""

    def loss(weights: Array) -> tuple[float, Array]:
        mixed = np.einsum("ncm,cm->nc", predictions, weights)
        total, share = mixed.sum(axis=1, keepdims=True), truth.sum(axis=1, keepdims=True)
        value = float((share * np.log(total)).sum() - (truth * np.log(mixed)).sum())
        return value, np.einsum("nc,ncm->cm", share / total - truth / mixed, predictions)

    return loss


def _descend(objective: Objective, start: Array) -> tuple[Array, float, float]:
    """Projected gradients with the step of Barzilai and Borwein (Birgin et al., 2000).

    Never goes up. Returns the point, its value and its Frank-Wolfe gap.
    """
    weights = start
    value, gradient = objective(weights)
    length = 1.0 / max(float(np.abs(gradient).max()), 1e-12)
    for _ in range(_STEPS):
        if _gap(weights, gradient) <= _TINY_GAP:
            break
        direction = _project(weights - length * gradient) - weights
        step = line_search(objective, weights, direction, value, gradient)
        if step is None:
            break
        there, lower, slope = step
        moved, turned = there - weights, slope - gradient
        bend = float((moved * turned).sum())
        length = float((moved**2).sum()) / bend if bend > 0 else 1e3
        length = min(max(length, 1e-6), 1e6)
        weights, value, gradient = there, lower, slope
    return weights, value, _gap(weights, gradient)


def _gap(weights: Array, gradient: Array) -> float:
    """Over a product of simplices it is the sum of their gaps."""
    return max(0.0, float((gradient * weights).sum() - gradient.min(axis=1).sum()))


def _project(points: Array) -> Array:
    """The nearest point of the simplex to each row (Held, Wolfe and Crowder, 1974)."""
    ordered = -np.sort(-points, axis=1)
    over = (np.cumsum(ordered, axis=1) - 1) / np.arange(1, points.shape[1] + 1)
    last = (ordered > over).sum(axis=1) - 1
    return np.maximum(points - np.take_along_axis(over, last[:, None], axis=1), 0.0)
