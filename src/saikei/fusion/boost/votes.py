"""AdaBoost's arithmetic: votes, the weight of a member and of the rows, the exponential loss.

Zhu, Zou, Rosset and Hastie, "Multi-class AdaBoost", Statistics and Its Interface, 2009: K classes,
for two of which it is AdaBoost (Freund and Schapire, 1997).
"""

from __future__ import annotations

import numpy as np
from scipy import special

from saikei.batches import Array
from saikei.scoring.task import Task


def true_classes(task: Task, labels: Array) -> Array:
    """The class of each row, int `(n,)`."""
    if task.kind == "multiclass" and not task.sparse:
        return np.asarray(labels.argmax(axis=-1))
    return np.asarray(labels.reshape(len(labels)).astype(int))


def votes(task: Task, outputs: Array) -> Array:
    """One vote of each row for the class that is most likely, float64 `(n, K)`."""
    if task.kind == "multiclass":
        chosen = outputs.reshape(len(outputs), -1).argmax(axis=1)
        return np.asarray(np.eye(outputs.shape[-1])[chosen])
    yes = outputs.reshape(len(outputs)) > (0.0 if task.from_logits else 0.5)
    return np.asarray(np.eye(2)[yes.astype(int)])


def log_votes(task: Task, logits: Array) -> Array:
    """The log-probabilities of each row, float64 `(n, K)`: SAMME.R's votes."""
    if task.kind == "multiclass":
        return np.asarray(special.log_softmax(logits.reshape(len(logits), -1), axis=1))
    flat = logits.reshape(len(logits))
    return np.stack([special.log_expit(-flat), special.log_expit(flat)], axis=-1)


def member_weight(error: float, classes: int) -> float:
    """α of a member: log((1 - error) / error) + log(K - 1), above 0 if it is better than chance.

    Args:
        error: the share of the weighted rows that it gets wrong, above 0 and below 1.
        classes: K.
    """
    return float(np.log1p(-error) - np.log(error) + np.log(classes - 1))


def losses(total: Array, classes: Array) -> Array:
    """The logarithm of the exponential loss of each row, float64 `(n,)`.

    The loss is exp(-yᵀf / K), y being 1 at the class and -1 / (K - 1) elsewhere, and f of that
    form too; in terms of votes, the mean vote of a row less the one for its class. For two classes
    it is at least 1 where the class is wrong, so its mean bounds the share of errors.

    Args:
        total: the sum of weighted votes `(n, K)`.
        classes: the true ones, `(n,)`.
    """
    return np.asarray(total.mean(axis=1) - total[np.arange(len(total)), classes])


def mean_loss(total: Array, classes: Array, weights: Array) -> float:
    """The mean exponential loss; `weights` have a sum of 1."""
    return float(weights @ np.exp(losses(total, classes)))


def row_weights(total: Array, classes: Array, weights: Array) -> Array:
    """What rows weigh for the next member: in proportion to their exponential loss so far.

    Args:
        total: the sum of weighted votes `(n, K)`.
        classes: the true ones, `(n,)`.
        weights: what rows weigh at the start.

    Returns:
        float64 `(n,)`, with a sum of 1.
    """
    logs = losses(total, classes)
    raised = weights * np.exp(logs - logs.max())
    return np.asarray(raised / raised.sum())
