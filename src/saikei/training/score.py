"""How good predictions are, with a 95 % interval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import keras
import numpy as np
from scipy import stats

from saikei.errors import DataError
from saikei.training.batches import Array
from saikei.training.predictions import log_probabilities, predict
from saikei.training.task import Task, infer_tasks

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Score:
    """A metric on n samples.

    Args:
        name: of the metric: `"accuracy"`, `"binary_accuracy"` (mean over labels), `"mse"`, or
            `"loss"` for several outputs.
        value: the metric.
        low: lower end of its 95 % interval.
        high: upper end.
        n: number of samples.
        greater_is_better: whether a higher value is a better model.
        loss: mean log-loss in nats, or squared error for regression; summed over outputs.
    """

    name: str
    value: float
    low: float
    high: float
    n: int
    greater_is_better: bool
    loss: float

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Score:
        """The inverse of `to_dict`."""
        return cls(**record)

    def __str__(self) -> str:
        return f"{self.name} {self.value:.4f} [{self.low:.4f}, {self.high:.4f}]"


def evaluate(model: keras.Model, data: Any, *, batch_size: int = 256) -> Score:
    """Score a model on data that it was not trained on.

    Args:
        model: a built model; it needs not be compiled.
        data: `(x, y)` arrays, or a dataset that `keras.Model.fit` takes; sample weights are
            refused.
        batch_size: samples a step, for arrays.

    Raises:
        DataError: when the data is empty or does not fit the model.
    """
    labels, outputs = predict(model, data, batch_size)
    return score_outputs(infer_tasks(model, labels), keras.tree.flatten(labels), outputs)


def score_outputs(tasks: Sequence[Task], labels: Sequence[Any], outputs: Sequence[Any]) -> Score:
    """The metric of one output, or the summed loss of several.

    Args:
        tasks: what each output learns.
        labels: one array for each.
        outputs: one array for each.

    Raises:
        DataError: when predictions are of another length than labels, or not finite.
    """
    if len(tasks) == 1:
        return score_predictions(tasks[0], labels[0], outputs[0])
    losses = summed_losses(tasks, labels, outputs)
    value, low, high = mean_interval(losses)
    return Score("loss", value, low, high, len(losses), False, value)


def summed_losses(tasks: Sequence[Task], labels: Sequence[Any], outputs: Sequence[Any]) -> Array:
    """The loss of each sample, float64 `(n,)`, summed over the outputs."""
    each = zip(tasks, labels, outputs, strict=True)
    return np.asarray(sum(sample_losses(task, y, output) for task, y, output in each))


def score_predictions(task: Task, y_true: Any, y_pred: Any) -> Score:
    """Score the predictions of one output.

    The interval of an accuracy is Wilson's when each sample is simply right or wrong, otherwise
    Student's for the mean over samples.

    Args:
        task: what the output learns.
        y_true: labels, as the task has them.
        y_pred: `(n, …, outputs)`, probabilities or logits as the task says.

    Raises:
        DataError: when the predictions are of another length than the labels, or not finite.
    """
    each = per_sample(task, y_true, y_pred)
    if _is_right_or_wrong(task, y_pred):
        right = int(each.sum())
        interval = stats.binomtest(right, len(each)).proportion_ci(CONFIDENCE, method="wilson")
        value, low, high = right / len(each), float(interval.low), float(interval.high)
    else:
        value, low, high = mean_interval(each)
    loss = float(sample_losses(task, y_true, y_pred).mean())
    return Score(task.metric, value, low, high, len(each), task.greater_is_better, loss)


def per_sample(task: Task, y_true: Any, y_pred: Any) -> Array:
    """The metric of each sample: 1 or 0 for right or wrong, or the mean over its labels.

    Args:
        task: what the output learns.
        y_true: labels, as the task has them.
        y_pred: `(n, …, outputs)`.

    Returns:
        float64 `(n,)`; its mean is the metric.
    """
    y, pred = _checked(task, y_true, y_pred)
    if task.kind == "regression":
        each = (pred - y) ** 2
    elif task.kind == "multiclass":
        truth = y if task.sparse else y.argmax(axis=-1)
        each = pred.argmax(axis=-1) == truth
    else:
        each = (pred > (0.0 if task.from_logits else 0.5)) == (y > 0.5)
    return _mean_of_rest(each)


def sample_losses(task: Task, y_true: Any, y_pred: Any) -> Array:
    """The log-loss (nats) or squared error of each sample, float64 `(n,)`.

    As in Keras's losses, probabilities are clipped to its epsilon and logits are not.
    """
    y, pred = _checked(task, y_true, y_pred)
    if task.kind == "regression":
        return _mean_of_rest((pred - y) ** 2)
    log_p = log_probabilities(task, pred)
    if task.kind != "multiclass":
        log_not_p = log_probabilities(task, -pred if task.from_logits else 1 - pred)
        return _mean_of_rest(-(y * log_p + (1 - y) * log_not_p))
    if task.sparse:
        chosen = np.take_along_axis(log_p, y[..., None].astype(int), axis=-1)[..., 0]
        return _mean_of_rest(-chosen)
    return _mean_of_rest(-(y * log_p).sum(axis=-1))


def paired_difference(
    task: Task, y_true: Any, pred_a: Any, pred_b: Any
) -> tuple[float, float, float]:
    """How much better a is than b in the metric, on the same samples.

    Pairing leaves out what both find easy or hard, so the interval is narrower than the two
    scores' own.

    Returns:
        The metric of a minus that of b, and its 95 % interval `(difference, low, high)`.
    """
    return mean_interval(per_sample(task, y_true, pred_a) - per_sample(task, y_true, pred_b))


def mean_interval(values: Array) -> tuple[float, float, float]:
    """A mean with Student's 95 % interval; from one value, or equal ones, no wider than it."""
    mean = float(values.mean())
    error = float(stats.sem(values)) if len(values) > 1 else 0.0
    if error == 0.0:
        return mean, mean, mean
    low, high = stats.t.interval(CONFIDENCE, len(values) - 1, loc=mean, scale=error)
    return mean, float(low), float(high)


def _is_right_or_wrong(task: Task, y_pred: Any) -> bool:
    return (task.kind == "multiclass" and y_pred.ndim == 2) or (
        task.kind == "binary" and int(np.prod(y_pred.shape[1:])) == 1
    )


def _checked(task: Task, y_true: Any, y_pred: Any) -> tuple[Array, Array]:
    y, pred = np.asarray(y_true), np.asarray(y_pred, dtype=np.float64)
    if len(y) != len(pred):
        raise DataError(f"{len(y)} labels but {len(pred)} predictions: score the same samples.")
    if len(y) == 0:
        raise DataError("There are no samples to score: give at least one.")
    if not np.isfinite(pred).all():
        raise DataError("The predictions hold NaN or infinite numbers: check model and data.")
    shape = pred.shape[:-1] if task.kind == "multiclass" and task.sparse else pred.shape
    if y.size != np.prod(shape):
        raise DataError(
            f"Labels of shape {y.shape} do not fit predictions of shape {pred.shape}: give "
            f"{'a class' if shape != pred.shape else 'a number'} for each of {shape}."
        )
    return y.reshape(shape), pred


def _mean_of_rest(values: Array) -> Array:
    return np.asarray(values.reshape(len(values), -1).mean(axis=1, dtype=np.float64))
