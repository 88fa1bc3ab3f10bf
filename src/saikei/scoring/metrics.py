"""Metrics by name: any of Keras or scikit-learn, or a function, with an interval."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from sklearn import metrics as sklearn_metrics

from saikei.arguments import shown
from saikei.batches import Array
from saikei.errors import DataError, InputError
from saikei.scoring.labels import Labels, as_labels
from saikei.scoring.links import to_probabilities
from saikei.scoring.score import Score, sample_losses
from saikei.scoring.task import Task

RESAMPLES = 200
# Keras does not declare whether more is better; metrics with these words are to be lowered.
_LOWER = ("error", "loss", "crossentropy", "divergence", "hinge", "poisson", "logcosh", "huber")
_OWN = {"auc": "roc_auc", "pr_auc": "average_precision"}

# The log-loss of a token of a language model, and its exponential.
_TOKENS: dict[str, Callable[[float], float]] = {"nats": float, "perplexity": np.exp}

Function = Callable[[Array, Array, Array | None], float]


@dataclass(frozen=True)
class Metric:
    """A number that measures how good predictions are.

    Args:
        name: The name that it was given by.
        greater_is_better: Whether a higher value is a better model.
        function: A function of labels, predictions and weights of those that count, `(k,)` or
            `(k, width)`.
    """

    name: str
    greater_is_better: bool
    function: Function

    def value(self, task: Task, labels: Any, outputs: Array) -> float:
        """The metric alone, without its interval, for a search over many predictions.

        Args:
            task: What the output learns.
            labels: An array, or `Labels`.
            outputs: `(n, …, outputs)`.

        Raises:
            DataError: When the metric is not defined on this data.
        """
        parts = _Counted.of(task, as_labels(labels), outputs)
        return self._of(task, parts, np.arange(len(parts.y)))

    def score(self, task: Task, labels: Any, outputs: Array, seed: int = 0) -> Score:
        """The metric with a 95 % interval, by bootstrap over the samples.

        Args:
            task: What the output learns.
            labels: An array, or `Labels`.
            outputs: `(n, …, outputs)`.
            seed: Seed of the bootstrap.

        Raises:
            DataError: When the metric is not defined on this data.
        """
        known = as_labels(labels)
        parts = _Counted.of(task, known, outputs)
        value = self._of(task, parts, np.arange(len(parts.y)))
        drawn = [self._of(task, parts, rows) for rows in parts.resampled(seed)]
        low, high = _interval(value, drawn)
        loss = float(sample_losses(task, known, outputs).sum() / known.rows().sum())
        count = int(known.counted.sum())
        return Score(self.name, value, low, high, count, self.greater_is_better, loss)

    def difference(
        self, task: Task, labels: Any, first: Array, second: Array, seed: int = 0
    ) -> tuple[float, float, float]:
        """The metric of the first less that of the second, paired, with its 95 % interval."""
        a, b = (_Counted.of(task, as_labels(labels), one) for one in (first, second))
        everything = np.arange(len(a.y))
        value = self._of(task, a, everything) - self._of(task, b, everything)
        drawn = [self._of(task, a, r) - self._of(task, b, r) for r in a.resampled(seed)]
        return (value, *_interval(value, drawn))

    def _of(self, task: Task, parts: _Counted, rows: Array) -> float:
        weights = None if parts.weights is None else parts.weights[rows]
        try:
            with warnings.catch_warnings():
                # A class may be missing from what was drawn.
                warnings.simplefilter("ignore")
                return float(self.function(parts.y[rows], parts.outputs[rows], weights))
        except (ValueError, TypeError, IndexError) as error:
            raise DataError(
                f"metric='{self.name}' does not fit a {task.kind} output: "
                f"{str(error).splitlines()[0]}"
            ) from error


@dataclass(frozen=True, eq=False)
class _Counted:
    """What counts, one row for each position."""

    y: Array
    outputs: Array
    weights: Array | None
    sample: Array

    @classmethod
    def of(cls, task: Task, labels: Labels, outputs: Array) -> _Counted:
        made = outputs if task.kind == "regression" else to_probabilities(task, outputs)
        width = made.shape[-1] if made.ndim > 1 else 1
        flat = np.asarray(made, dtype=np.float64).reshape(-1, width)
        each = len(flat) // len(labels)
        sparse = task.kind == "multiclass" and task.sparse
        y = labels.values.reshape(len(flat), *(() if sparse else (width,)))
        counts = labels.over((*labels.values.shape,)).reshape(len(flat), -1)[:, 0]
        kept = np.flatnonzero(counts > 0)
        if not len(kept):
            raise DataError("Nothing of the data counts: give samples that do.")
        weights = None if labels.importance is None else counts[kept]
        return cls(y[kept], flat[kept], weights, kept // each)

    def resampled(self, seed: int) -> Sequence[Array]:
        """Rows of samples drawn with replacement."""
        generator = np.random.default_rng(seed)
        samples, starts, counts = np.unique(self.sample, return_index=True, return_counts=True)
        found = []
        for _ in range(RESAMPLES):
            drawn = generator.integers(0, len(samples), len(samples))
            if (counts == 1).all():
                found.append(starts[drawn])
            else:
                own = [np.arange(starts[d], starts[d] + counts[d]) for d in drawn]
                found.append(np.concatenate(own))
        return found


def find_metric(given: Any, task: Task) -> Metric:
    """A metric that was given by name, as one of Keras, or as a function.

    Args:
        given: A name of scikit-learn's scorers (`"roc_auc"`, `"f1"`, `"balanced_accuracy"`,
            `"neg_mean_absolute_error"`, …) or of Keras's metrics, `"auc"`, `"pr_auc"`; `"nats"` or
            `"perplexity"` of classes, which are the tokens of a language model; a Keras metric; or
            a function of labels and predictions, and of `sample_weight` if it takes some, of which
            more is better.
        task: What the output learns.

    Raises:
        InputError: When there is no such metric.
    """
    if isinstance(given, Metric):
        return given
    if isinstance(given, keras.metrics.Metric):
        return _of_keras(given, task)
    if isinstance(given, str):
        if given in _TOKENS and task.kind == "multiclass":
            return _of_tokens(given, task)
        found = _of_sklearn(given, task) or _keras_by_name(given, task)
        if found is not None:
            return found
    elif callable(given):
        name = getattr(given, "__name__", type(given).__name__)
        return Metric(name, True, _own_function(given))
    raise InputError(
        f"metric={shown(given)} is unknown: give a name of scikit-learn's scorers, such as "
        "'roc_auc', 'f1' or 'balanced_accuracy', a name or object of keras.metrics, or a function."
    )


def _of_tokens(name: str, task: Task) -> Metric:
    def function(y: Array, p: Array, weights: Array | None) -> float:
        truth = y if task.sparse else y.argmax(axis=-1)
        chosen = np.take_along_axis(p, truth.reshape(-1, 1).astype(np.int64), axis=-1)[:, 0]
        losses = -np.log(np.maximum(chosen / p.sum(axis=-1), np.finfo(np.float64).tiny))
        return float(_TOKENS[name](float(np.average(losses, weights=weights))))

    return Metric(name, False, function)


def _of_sklearn(name: str, task: Task) -> Metric | None:
    key = _OWN.get(name.lower(), name.lower())
    if key not in sklearn_metrics.get_scorer_names():
        return None
    scorer = sklearn_metrics.get_scorer(key)
    score, options = scorer._score_func, dict(scorer._kwargs)
    decides = scorer._response_method == "predict"
    several = task.kind == "multiclass"
    parameters = inspect.signature(score).parameters
    if several and options.get("average", "binary") == "binary" and "average" in parameters:
        options["average"] = "macro"
    if key == "roc_auc" and several:
        options["multi_class"] = "ovr"

    def function(y: Array, p: Array, weights: Array | None) -> float:
        truth = y if not several or task.sparse else y.argmax(axis=-1)
        predicted = _decided(task, p) if decides else p
        if task.kind in ("binary", "regression") and p.shape[-1] == 1:
            truth, predicted = truth.reshape(-1), predicted.reshape(-1)
        if several and not decides:
            # Of two classes scikit-learn takes the probability of the second.
            predicted = predicted / predicted.sum(axis=-1, keepdims=True)
            if predicted.shape[-1] == 2 and key != "neg_log_loss":
                predicted = predicted[:, 1]
            elif "labels" in parameters:
                options["labels"] = np.arange(predicted.shape[-1])
        given = {} if weights is None else {"sample_weight": weights}
        return float(score(truth, predicted, **options, **given))

    # Of errors scikit-learn turns the sign, so that more is better: here they stay errors.
    return Metric(name, scorer._sign > 0, function)


def _decided(task: Task, p: Array) -> Array:
    if task.kind == "regression":
        return p
    return np.asarray(p.argmax(axis=-1) if task.kind == "multiclass" else (p > 0.5).astype(int))


def _keras_by_name(name: str, task: Task) -> Metric | None:
    try:
        found = keras.metrics.get(name)
    except ValueError:
        return None
    if isinstance(found, type):
        found = found()
    if not isinstance(found, keras.metrics.Metric):
        found = keras.metrics.MeanMetricWrapper(found, name=name)
    return _of_keras(found, task, name)


def _of_keras(metric: keras.metrics.Metric, task: Task, name: str | None = None) -> Metric:
    shown = name or metric.name
    words = f"{type(metric).__name__} {shown}".lower().replace("_", "")
    rows = isinstance(metric, keras.metrics.FBetaScore) and task.kind == "multiclass"

    def function(y: Array, p: Array, weights: Array | None) -> float:
        # Keras's F scores compare rows of the same width, and other metrics fail with float64.
        if rows and y.reshape(len(y), -1).shape[1] == 1:
            y = np.eye(p.shape[-1], dtype=np.float32)[y.reshape(-1).astype(np.int64)]
        metric.reset_state()
        metric.update_state(y, p.astype(np.float32), sample_weight=weights)
        return float(np.mean(keras.ops.convert_to_numpy(metric.result())))

    return Metric(shown, not any(word in words for word in _LOWER), function)


def _own_function(given: Callable[..., Any]) -> Function:
    weighted = "sample_weight" in inspect.signature(given).parameters

    def function(y: Array, p: Array, weights: Array | None) -> float:
        if weights is None:
            return float(given(y, p))
        if not weighted:
            raise TypeError("it takes no sample_weight, and samples of the data count differently")
        return float(given(y, p, sample_weight=weights))

    return function


def _interval(value: float, drawn: Sequence[float]) -> tuple[float, float]:
    known = [one for one in drawn if np.isfinite(one)]
    if not np.isfinite(value) or not known:
        return value, value
    low, high = np.quantile(known, [0.025, 0.975])
    return min(float(low), value), max(float(high), value)
