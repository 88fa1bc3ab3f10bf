"""`Labelled`: the labels of some rows, and how good predictions for these rows are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import keras
import numpy as np
from keras import tree

from saikei.batches import Array, predict_arrays
from saikei.scoring.labels import Labels, row_importance
from saikei.scoring.links import as_outputs
from saikei.scoring.metrics import Metric
from saikei.scoring.score import (
    Difference,
    Score,
    mean_interval,
    per_sample,
    sample_losses,
    score_predictions,
)
from saikei.scoring.task import Task, labels_for, labels_of
from saikei.tensors import to_floats

PREDICT_BATCH = 256

Outputs = tuple[Array, ...]


@dataclass(frozen=True, eq=False)
class Labelled:
    """Labels of some rows, so that a model's outputs for them can be scored.

    Args:
        tasks: What each output learns.
        labels: The labels of each output, with how much each of them counts.
        x: The inputs of the rows, nested as the models take them; `None` where only outputs that
            are known already are scored.
        metric: What to score by; `None` takes the metric of the task.
        nats: Whether the one output is scored by the log-loss of a label, as the tokens of a
            language model are, in the place of the metric of its task.
    """

    tasks: tuple[Task, ...]
    labels: tuple[Labels, ...] = field(repr=False)
    x: Any = field(default=None, repr=False)
    metric: Metric | None = None
    nats: bool = False

    @classmethod
    def of(
        cls, tasks: Sequence[Task], labels: Sequence[Any], outputs: Sequence[Array] | None = None
    ) -> Labelled:
        """Labels that are not all `Labels` yet.

        Args:
            tasks: What each output learns.
            labels: One array, or `Labels`, for each output.
            outputs: Predictions for the same rows, one array for each output, to whose shapes
                the labels are brought; `None` leaves the shapes as they are.

        Raises:
            DataError: When labels are NaN, none counts, or they do not fit the outputs.
        """
        if outputs is None:
            pairs = zip(tasks, labels, strict=True)
            return cls(tuple(tasks), tuple(labels_for(*pair) for pair in pairs))
        each = zip(tasks, outputs, labels, strict=True)
        return cls(tuple(tasks), tuple(labels_of(*one) for one in each))

    def __len__(self) -> int:
        return len(self.labels[0]) if self.labels else 0

    def take(self, rows: Any) -> Labelled:
        """Some of the rows: a slice, indices or booleans."""
        x = self.x if self.x is None else tree.map_structure(lambda leaf: leaf[rows], self.x)
        return replace(self, labels=tuple(part[rows] for part in self.labels), x=x)

    def as_logits(self) -> Labelled:
        """The labels for predictions that are logits wherever the task is not a regression."""
        tasks = (
            task if task.kind == "regression" else replace(task, from_logits=True)
            for task in self.tasks
        )
        return replace(self, tasks=tuple(tasks))

    def predict(self, model: keras.Model) -> Outputs:
        """The outputs of a model for the rows: one array `(n, …)` for each output."""
        found = predict_arrays(model, self.x, PREDICT_BATCH)
        return tuple(to_floats(output) for output in tree.flatten(found))

    def losses(self, outputs: Sequence[Any]) -> Array:
        """The log-loss (nats) or squared error of each row, summed over the outputs.

        Args:
            outputs: Predictions, one array `(n, …)` for each output.

        Returns:
            float64 `(n,)`; its mean is the loss.

        Raises:
            DataError: When predictions are of another length than labels, or not finite.
        """
        each = zip(self.tasks, self.labels, outputs, strict=True)
        return np.asarray(sum(sample_losses(*one) for one in each))

    def loss(self, outputs: Sequence[Any]) -> float:
        """The mean of `losses`."""
        return float(self.losses(outputs).mean())

    def score(self, outputs: Sequence[Any]) -> Score:
        """The metric of one output, or the summed loss of several.

        Args:
            outputs: Predictions, one array `(n, …)` for each output.

        Raises:
            DataError: When predictions are of another length than labels, or not finite.
        """
        if self.metric is not None:
            return self.metric.score(self.tasks[0], self.labels[0], outputs[0])
        if len(self.tasks) == 1:
            return score_predictions(self._scored, self.labels[0], outputs[0])
        importance = row_importance(self.labels)
        value, low, high = mean_interval(self.losses(outputs), importance)
        return Score("loss", value, low, high, int((importance > 0).sum()), False, value)

    def merit(self, outputs: Sequence[Any]) -> tuple[float, float]:
        """Two numbers to sort predictions by: the metric, and the loss among equal metrics.

        They are those of `score`, with a changed sign where smaller is better, so that more is
        always better. No interval is computed, since a search compares many predictions.

        Args:
            outputs: Predictions, one array `(n, …)` for each output.

        Raises:
            DataError: When predictions are of another length than labels, or not finite.
        """
        loss = self.loss(outputs)
        if self.metric is not None:
            value = self.metric.value(self.tasks[0], self.labels[0], outputs[0])
            return (value if self.metric.greater_is_better else -value), -loss
        if len(self.tasks) > 1:
            return -loss, -loss
        value = float(per_sample(self._scored, self.labels[0], outputs[0]).mean())
        return (value if self._scored.greater_is_better else -value), -loss

    def difference(self, first: Sequence[Any], second: Sequence[Any]) -> Difference:
        """The score of the first predictions minus that of the second, paired by row.

        Pairing leaves out what both find easy or hard, so the interval is narrower than those of
        the two scores.

        Args:
            first: Predictions, one array `(n, …)` for each output.
            second: Other predictions for the same rows.
        """
        if self.metric is not None:
            one = self.tasks[0], self.labels[0], first[0], second[0]
            return Difference(*self.metric.difference(*one))
        a, b = (self._each(outputs) for outputs in (first, second))
        return Difference(*mean_interval(a - b, row_importance(self.labels)))

    def _each(self, outputs: Sequence[Any]) -> Array:
        if len(self.tasks) == 1:
            return per_sample(self._scored, self.labels[0], outputs[0])
        return self.losses(outputs)

    @property
    def _scored(self) -> Task:
        """The task of the one output, with the metric that it is scored by."""
        return replace(self.tasks[0], metric="nats") if self.nats else self.tasks[0]

    def prior(self, outputs: Sequence[Array]) -> Outputs:
        """Constant predictions equal to the label frequencies.

        Returns:
            For each output one constant for each index of its last axis: the mean of the labels,
            in the form of the outputs: numbers, probabilities or logits. They are read-only.
        """
        each = zip(self.tasks, self.labels, outputs, strict=True)
        return tuple(np.broadcast_to(_prior(task, y, part), part.shape) for task, y, part in each)

    def least_loss(self) -> float:
        """The mean loss of outputs that are equal to the labels, summed over the outputs.

        It is 0 for class numbers and for numbers, and the entropy of labels that are
        probabilities, such as a teacher's predictions.
        """
        least = 0.0
        for task, labels in zip(self.tasks, self.labels, strict=True):
            if not task.sparse:
                perfect = as_outputs(task, np.asarray(labels.values, dtype=float))
                least += float(sample_losses(task, labels, perfect).mean())
        return least


def _prior(task: Task, labels: Labels, output: Array) -> Array:
    classes = output.shape[-1] if output.ndim > 1 else 1
    y, counts = labels.values, labels.over(labels.values.shape)
    if task.kind == "multiclass" and task.sparse:
        numbers = y.reshape(-1).astype(np.int64)
        mean = np.bincount(numbers, weights=counts.reshape(-1), minlength=classes) / counts.sum()
    else:
        shares = counts.reshape(-1, classes)
        total = np.maximum(shares.sum(axis=0), np.finfo(np.float64).tiny)
        mean = (y.reshape(-1, classes) * shares).sum(axis=0) / total
    constant = as_outputs(task, mean)
    return np.asarray(constant if output.ndim > 1 else constant[0])
