"""Learned weights of an average: the best convex combination on held-out data, certified."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from scipy import special

from saikei.errors import DataError, FusionError
from saikei.fusion import simplex
from saikei.fusion.simplex import Array, SimplexMinimum, ValueAndGradient
from saikei.training.predictions import to_probabilities
from saikei.training.task import Task


@dataclass(frozen=True)
class FittedWeights:
    """Weights of an average and how good they are.

    Args:
        values: one for each member, at least 0, with sum 1.
        loss: the average's mean log-loss (nats) or squared error on the data of the fit, summed
            over outputs.
        gap: no weights at all have a loss lower than `loss - gap`.
    """

    values: tuple[float, ...]
    loss: float
    gap: float


def fit_weights(tasks: Task | Sequence[Task], predictions: Sequence[Any], y: Any) -> FittedWeights:
    """Find the weights that minimise the loss of the weighted average of predictions.

    Deterministic. Members that predict exactly the same share their weight equally, so that the
    order of the members does not matter.

    Args:
        tasks: what the output learns, or one for each output.
        predictions: one entry for each member: `(n, …, outputs)`, or for several outputs a list
            of such arrays. They should come from data that no member was trained on.
        y: labels, or a list of labels for each output.

    Raises:
        FusionError: when there are fewer than two members.
        DataError: when predictions are not finite, or do not fit each other or the labels.
    """
    if isinstance(tasks, Task):
        return fit_weights((tasks,), [[one] for one in predictions], [y])
    if len(predictions) < 2:
        raise FusionError(f"Weights need at least two members, got {len(predictions)}.")
    unique, of_member = _distinct(predictions)
    if len(unique) == 1:
        minimum = _minimise(tasks, [unique[0], unique[0]], y)
        minimum = SimplexMinimum(np.ones(1), minimum.value, 0.0)
    else:
        minimum = _minimise(tasks, unique, y)
    shared = minimum.weights[of_member] / np.bincount(of_member)[of_member]
    return FittedWeights(tuple(float(weight) for weight in shared), minimum.value, minimum.gap)


def _distinct(predictions: Sequence[Any]) -> tuple[list[list[Array]], Any]:
    """The members that differ, and which of them each member is."""
    unique: list[list[Array]] = []
    of_member: list[int] = []
    for number, member in enumerate(predictions, start=1):
        arrays = [np.asarray(part, dtype=np.float64) for part in member]
        if not all(np.isfinite(part).all() for part in arrays):
            raise DataError(f"Member {number} predicts NaN or infinite numbers: check it.")
        same = (i for i, other in enumerate(unique) if _equal(arrays, other))
        place = next(same, len(unique))
        if place == len(unique):
            unique.append(arrays)
        of_member.append(place)
    return unique, np.array(of_member)


def _equal(a: list[Array], b: list[Array]) -> bool:
    return all(np.array_equal(p, q) for p, q in zip(a, b, strict=True))


def _minimise(tasks: Sequence[Task], members: list[list[Array]], y: Any) -> SimplexMinimum:
    stacked = [
        (task, np.stack([member[i] for member in members]), _labels(task, members[0][i], y[i]))
        for i, task in enumerate(tasks)
    ]
    if all(task.kind == "regression" for task in tasks):
        # A sum over outputs of means is a mean over rows that are scaled to the same total.
        parts = [_residuals(p, labels) for _, p, labels in stacked]
        rows = sum(len(part) for part in parts)
        return simplex.least_squares(
            np.concatenate([part * np.sqrt(rows / len(part)) for part in parts])
        )
    if all(task.kind != "regression" and not task.from_logits for task in tasks):
        outcomes = [_outcomes(*part) for part in stacked]
        total = float(len(outcomes))
        minimum = simplex.mixture_log_loss(
            np.concatenate([probabilities for probabilities, _ in outcomes]),
            np.concatenate([importance / total for _, importance in outcomes]),
        )
        return SimplexMinimum(minimum.weights, minimum.value * total, minimum.gap * total)
    objectives = [_objective(*part) for part in stacked]
    return simplex.any_convex(_summed(objectives), len(members))


def _labels(task: Task, prediction: Array, y: Any) -> Array:
    labels = np.asarray(y)
    shape = prediction.shape[:-1] if task.kind == "multiclass" and task.sparse else prediction.shape
    if labels.size != int(np.prod(shape)) or len(labels) != len(prediction) or not labels.size:
        raise DataError(
            f"Labels of shape {labels.shape} do not fit predictions of shape {prediction.shape}: "
            "give the labels of the samples that were predicted."
        )
    return labels.reshape(shape)


def _residuals(predictions: Array, labels: Array) -> Array:
    """`(rows, members)`: one row for each number that is predicted."""
    return np.asarray((predictions - labels).reshape(len(predictions), -1).T)


def _outcomes(task: Task, predictions: Array, labels: Array) -> tuple[Array, Array]:
    """What each member gave to what happened, `(rows, members)`, and each row's share of the loss.

    A row is an outcome with a share of the label: one for a sample of a sparse label, one for
    each label of a multilabel sample, several for soft labels.
    """
    p = np.clip(to_probabilities(task, predictions), *_clip())
    if task.kind == "multiclass" and task.sparse:
        chosen = np.take_along_axis(p, labels[None, ..., None].astype(int), axis=-1)
        rows = chosen.reshape(len(p), -1).T
        return rows, np.full(len(rows), 1.0 / len(rows))
    if task.kind == "multiclass":
        importance = labels.reshape(-1) / np.prod(labels.shape[:-1])
        rows = p.reshape(len(p), -1).T
    else:
        importance = np.concatenate([labels.reshape(-1), 1.0 - labels.reshape(-1)]) / labels.size
        flat = p.reshape(len(p), -1).T
        rows = np.concatenate([flat, 1.0 - flat])
    happened = importance > 0
    return rows[happened], importance[happened] / importance.sum()


def _clip() -> tuple[float, float]:
    return keras.config.epsilon(), 1.0 - keras.config.epsilon()


def _objective(task: Task, predictions: Array, labels: Array) -> ValueAndGradient:
    if task.kind == "regression":
        residuals = _residuals(predictions, labels)

        def squared(weights: Array) -> tuple[float, Array]:
            mixed = residuals @ weights
            return float(np.mean(mixed**2)), 2.0 * residuals.T @ mixed / len(mixed)

        return squared
    if task.from_logits:
        return _logit_loss(task, predictions, labels)
    rows, importance = _outcomes(task, predictions, labels)

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
