"""How good predictions are, with a 95 % interval."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from saikei.batches import Array
from saikei.codec import Jsonable
from saikei.errors import DataError
from saikei.scoring.labels import Labels
from saikei.scoring.links import log_probabilities
from saikei.scoring.task import Task, labels_for, labels_of

CONFIDENCE = 0.95
# Numbers that are processed together.
_BLOCK = 1 << 20


@dataclass(frozen=True)
class Score(Jsonable):
    """A metric on n samples.

    Args:
        name: The name of the metric: `"accuracy"`, `"binary_accuracy"` (mean over labels),
            `"mse"`, `"nats"` (mean over tokens), or `"loss"` for several outputs.
        value: The metric on all rows.
        low: The lower end of its 95 % interval.
        high: The upper end of that interval.
        n: Number of samples.
        greater_is_better: Whether a higher value is a better model.
        loss: Mean log-loss in nats, or squared error for regression; summed over outputs.
    """

    name: str
    value: float
    low: float
    high: float
    n: int
    greater_is_better: bool
    loss: float

    def __str__(self) -> str:
        return f"{self.name} {self.value:.4f} [{self.low:.4f}, {self.high:.4f}]"


@dataclass(frozen=True)
class Difference:
    """A paired difference of a metric on the same samples, with its 95 % interval."""

    value: float
    low: float
    high: float

    @property
    def standard_error(self) -> float:
        """One standard error, read off the interval's width."""
        return (self.high - self.low) / (2 * 1.959964)

    @property
    def clear(self) -> bool:
        """Whether the interval leaves zero out."""
        return self.low > 0 or self.high < 0


def score_predictions(task: Task, y_true: Any, y_pred: Any) -> Score:
    """Score the predictions of one output.

    The interval of an accuracy is Wilson's when each sample is simply right or wrong and all
    count the same, otherwise Student's for the (weighted) mean over samples.

    Args:
        task: What the output learns.
        y_true: Labels, as the task has them: an array or `Labels`.
        y_pred: `(n, …, outputs)`, probabilities, or logits where the task is from logits.

    Raises:
        DataError: When the predictions are of another length than the labels, or not finite.
    """
    labels = labels_for(task, y_true)
    each, importance = per_sample(task, labels, y_pred), labels.rows()
    loss = float(sample_losses(task, labels, y_pred).sum() / importance.sum())
    return score_rows(task, each, importance, loss, is_right_or_wrong(task, np.shape(y_pred)))


def score_rows(
    task: Task, each: Array, importance: Array, loss: float, right_or_wrong: bool
) -> Score:
    """Score one output by what is known of each row.

    Args:
        task: What the output learns.
        each: The metric of each row, times how much it counts, `(n,)`.
        importance: How much each row counts, `(n,)`, with mean 1.
        loss: The mean loss.
        right_or_wrong: Whether the metric of a row is 1 or 0, when it counts fully.
    """
    counted = importance > 0
    count = int(counted.sum())
    if right_or_wrong and _all_equal(importance[counted]):
        right = int((each[counted] > 0).sum())
        interval = stats.binomtest(right, count).proportion_ci(CONFIDENCE, method="wilson")
        value, low, high = right / count, float(interval.low), float(interval.high)
    else:
        value, low, high = mean_interval(each, importance)
        # No accuracy is above 1, and neither it nor a squared error is below 0.
        low, high = max(low, 0.0), min(high, 1.0) if task.greater_is_better else high
    return Score(task.metric, value, low, high, count, task.greater_is_better, loss)


def per_sample(task: Task, y_true: Any, y_pred: Any) -> Array:
    """The metric of each sample: 1 or 0 for right or wrong, a log-loss, or a mean over its labels.

    Of samples that count differently it is multiplied by how much each counts, so that the mean
    over all of them is the metric.

    Args:
        task: What the output learns.
        y_true: Labels, as the task has them: an array or `Labels`.
        y_pred: `(n, …, outputs)`.

    Returns:
        float64 `(n,)`; its mean is the metric.
    """
    return _in_blocks(_hits, task, *_together(task, y_true, y_pred))


def _hits(task: Task, y: Array, pred: Array) -> Array:
    if task.metric == "nats":
        return _each_loss(task, y, pred)
    if task.kind == "regression":
        return np.asarray((pred - y) ** 2)
    if task.kind == "multiclass":
        truth = y if task.sparse else y.argmax(axis=-1)
        return np.asarray(pred.argmax(axis=-1) == truth)
    return np.asarray((pred > (0.0 if task.from_logits else 0.5)) == (y > 0.5))


def sample_losses(task: Task, y_true: Any, y_pred: Any) -> Array:
    """The log-loss (nats) or squared error of each sample, float64 `(n,)`.

    As in Keras's losses, probabilities are clipped to its epsilon and logits are not. Of samples
    that count differently it is multiplied by how much each counts; the mean is the loss.

    Args:
        task: What the output learns.
        y_true: Labels, as the task has them: an array or `Labels`.
        y_pred: `(n, …, outputs)`.
    """
    labels, pred = _together(task, y_true, y_pred)
    return _in_blocks(_each_loss, task, labels, pred) * labels.scale


def _together(task: Task, y_true: Any, y_pred: Any) -> tuple[Labels, Array]:
    pred = np.asarray(y_pred)
    return labels_of(task, pred, y_true), pred


def _in_blocks(
    function: Callable[[Task, Array, Array], Array], task: Task, labels: Labels, pred: Array
) -> Array:
    """The mean of each row of what a function gives, of few rows at a time in float64."""
    each = max(1, int(np.prod(pred.shape[1:])))
    size = max(1, _BLOCK // each)
    parts = [slice(start, start + size) for start in range(0, len(pred), size)]
    found = []
    for part in parts:
        numbers = np.asarray(pred[part], dtype=np.float64)
        if not np.isfinite(numbers).all():
            raise DataError("The predictions hold NaN or infinite numbers: check model and data.")
        own = labels[part]
        found.append(own.mean(function(task, own.values, numbers)))
    return np.concatenate(found)


def _each_loss(task: Task, y: Array, pred: Array) -> Array:
    if task.kind == "regression":
        return np.asarray((pred - y) ** 2)
    log_p = log_probabilities(task, pred)
    if task.kind != "multiclass":
        log_not_p = log_probabilities(task, -pred if task.from_logits else 1 - pred)
        return np.asarray(-(y * log_p + (1 - y) * log_not_p))
    if task.sparse:
        chosen = np.take_along_axis(log_p, y[..., None].astype(int), axis=-1)[..., 0]
        return np.asarray(-chosen)
    return np.asarray(-(y * log_p).sum(axis=-1))


def mean_interval(values: Array, importance: Array | None = None) -> tuple[float, float, float]:
    """A mean with Student's 95 % interval; from one value, or equal ones, no wider than it.

    Args:
        values: The value of each sample, times how much it counts, `(n,)`.
        importance: How much each counts; `None` for all the same. The mean is then a ratio of
            two sums, and so is its error: that of the residuals (Cochran, "Sampling Techniques",
            1977).
    """
    if importance is not None and not (importance == 1).all():
        counted = importance > 0
        values, importance = values[counted], importance[counted]
        mean = float(values.sum() / importance.sum())
        values = (values - mean * importance) / importance.mean() + mean
    else:
        mean = float(values.mean())
    error = float(standard_error(values))
    if error <= 1e-12 * abs(mean):
        return mean, mean, mean
    low, high = stats.t.interval(CONFIDENCE, len(values) - 1, loc=mean, scale=error)
    return mean, float(low), float(high)


def standard_error(values: Array) -> Any:
    """The standard error of the mean over the last axis; 0 where there is one value."""
    count = values.shape[-1]
    if count < 2:
        return np.zeros(values.shape[:-1])
    return values.std(axis=-1, ddof=1) / np.sqrt(count)


def _all_equal(values: Array) -> bool:
    return not len(values) or bool(np.ptp(values) < 1e-9)


def is_right_or_wrong(task: Task, shape: tuple[int, ...]) -> bool:
    """Whether each row of predictions of a shape is simply right or wrong."""
    return (task.kind == "multiclass" and len(shape) == 2) or (
        task.kind == "binary" and int(np.prod(shape[1:])) == 1
    )
