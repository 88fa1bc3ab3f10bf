"""`evaluate`: the score of a model, batch by batch, so that memory follows the batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from saikei.arguments import checked
from saikei.batches import Array, as_arrays
from saikei.checks import input_count
from saikei.errors import DataError, InputError
from saikei.for_each_output import flat_weights
from saikei.hub import runs_tasks
from saikei.scoring.inference import Inference
from saikei.scoring.labels import Labels, count_raw, row_means
from saikei.scoring.observed import observe
from saikei.scoring.predictions import Predictions, predict_batches
from saikei.scoring.score import (
    Score,
    is_right_or_wrong,
    mean_interval,
    per_sample,
    sample_losses,
    score_rows,
)
from saikei.scoring.task import Task

# Of language models: a number for all tokens together, rather than for each sample.
TOKEN_METRICS = ("nats", "perplexity")


@checked
@runs_tasks("model", data=("data",))
def evaluate(
    model: keras.Model, data: Any, *, batch_size: int = 256, loss: Any = None, metric: Any = None
) -> Score:
    """Score a model on data that it was not trained on.

    What the loss does not count is not counted: padding that the output's mask covers, labels of
    the class that `ignore_class` names, labels that are NaN where the loss leaves them out, and
    samples of weight 0. Sample weights count as in `keras.Model.evaluate` with
    `weighted_metrics`; the loss is its loss over the whole data as one batch, so that it does
    not depend on how the data is cut into batches.

    Args:
        model: A built model; it need not be compiled.
        data: `(x, y)` or `(x, y, sample_weight)` arrays, or a dataset that `keras.Model.fit`
            takes. Weights are one number for each sample, or for each position. For a task of
            KerasHub also what its preprocessor takes, such as strings.
        batch_size: Samples a step, for arrays.
        loss: A Keras loss, one for each output, or `None` for the one that the model is
            compiled with, or that suits its outputs and the labels.
        metric: What to report: a name of scikit-learn or Keras, such as `"auc"`, `"f1"` or
            `"balanced_accuracy"`, a Keras metric or a function; see
            `saikei.scoring.metrics.find_metric`. Its interval comes from a bootstrap, for which
            the predictions are kept. `None` takes the accuracy or the squared error. For a
            language model, `"nats"` is the mean log-loss of a token, and `"perplexity"` its
            exponential; their intervals are over sequences, and no predictions are kept.

    Raises:
        DataError: When the data is empty or does not fit the model, or nothing of it counts.
        InputError: When there is no such metric, or the model has several outputs.
    """
    of_tokens = metric if isinstance(metric, str) and metric in TOKEN_METRICS else None
    if metric is not None and of_tokens is None:
        labelled, outputs = observe(model, data, batch_size, loss, metric)
        return labelled.score(outputs)
    inference = Inference(model, loss)
    arrays = as_arrays(data, "given", inputs=input_count(model))
    tasks = None if arrays is None else inference.tasks(arrays.y)
    rows, found = _pass(model, data, batch_size, inference, tasks)
    if found != rows.tasks:
        # Only later batches have shown that what looked like classes are numbers.
        rows, _ = _pass(model, data, batch_size, inference, found)
    return rows.score() if of_tokens is None else rows.of_tokens(of_tokens)


def _pass(
    model: keras.Model,
    data: Any,
    batch_size: int,
    inference: Inference,
    tasks: tuple[Task, ...] | None,
) -> tuple[_Rows, tuple[Task, ...]]:
    """Score by tasks, or by those of the first batch; with the tasks that suit all batches."""
    rows: _Rows | None = None
    found = tasks
    for part in predict_batches(model, data, batch_size):
        own = inference.tasks(part.y) if tasks is None else tasks
        rows = rows or _Rows(own, inference)
        found = own if found is None else _both(found, own)
        rows.add(part)
    assert rows is not None
    assert found is not None
    return rows, found if tasks is None else tasks


def _both(first: Sequence[Task], second: Sequence[Task]) -> tuple[Task, ...]:
    """Labels are classes only where they are in all batches."""
    pairs = zip(first, second, strict=True)
    return tuple(b if b.kind == "regression" != a.kind else a for a, b in pairs)


@dataclass
class _Output:
    """Sums over the labels of each row, of one output."""

    metric: list[Array]
    losses: list[Array]
    importance: list[Array]
    known: list[Array]
    shape: tuple[int, ...] = ()


class _Rows:
    """Metric and loss of each row, kept after its batch is gone."""

    def __init__(self, tasks: tuple[Task, ...], inference: Inference) -> None:
        self.tasks = tasks
        self._inference = inference
        self._each = [_Output([], [], [], []) for _ in tasks]

    def add(self, part: Predictions) -> None:
        labels = self._inference.labels(part.y)
        weights = flat_weights(part.weights, len(labels))
        each = zip(self.tasks, labels, part.outputs, part.masks, weights, self._each, strict=True)
        for task, y, output, mask, weight, into in each:
            values, counted, importance = count_raw(y, task.known(y), mask, weight)
            own = Labels(values, importance)
            # Sums, since batches may be padded to lengths of their own.
            size = max(1, int(np.prod(_positions(task, output.shape))))
            into.metric.append(per_sample(task, own, output) * size)
            into.losses.append(sample_losses(task, own, output) * size)
            into.importance.append(own.rows() * size)
            known = np.ones(len(y)) if counted is None else row_means(counted)
            into.known.append(known * size)
            into.shape = output.shape

    def score(self) -> Score:
        joined = [
            [np.concatenate(part) for part in (o.metric, o.losses, o.importance, o.known)]
            for o in self._each
        ]
        if any(not importance.sum() > 0 for _, _, importance, _ in joined):
            raise _nothing_counts()
        if len(joined) == 1:
            metric, losses, importance, known = joined[0]
            mean = importance.mean()
            loss = float(losses.sum() / known.sum())
            simple = is_right_or_wrong(self.tasks[0], self._each[0].shape)
            return score_rows(self.tasks[0], metric / mean, importance / mean, loss, simple)
        total = np.sum([losses / known.mean() for _, losses, _, known in joined], axis=0)
        counts = np.mean([part / part.mean() for _, _, part, _ in joined], axis=0)
        value, low, high = mean_interval(total, counts)
        return Score("loss", value, low, high, int((counts > 0).sum()), False, value)

    def of_tokens(self, metric: str) -> Score:
        """The log-loss of a token, a ratio of sums over sequences, or its exponential."""
        if len(self.tasks) != 1 or self.tasks[0].kind != "multiclass":
            raise InputError(
                f"metric='{metric}' is for one output of tokens, which are classes: leave it out."
            )
        (output,) = self._each
        losses, importance = (np.concatenate(p) for p in (output.losses, output.importance))
        if not importance.sum() > 0:
            raise _nothing_counts()
        nats = mean_interval(losses / importance.mean(), importance / importance.mean())
        count = int((importance > 0).sum())
        value, low, high = np.exp(nats) if metric == "perplexity" else nats
        return Score(metric, float(value), float(low), float(high), count, False, nats[0])


def _nothing_counts() -> DataError:
    return DataError(
        "Nothing of the given data counts: every label is masked, ignored by the loss or of "
        "weight 0. Give samples that count."
    )


def _positions(task: Task, shape: tuple[int, ...]) -> tuple[int, ...]:
    return shape[1:-1] if task.kind == "multiclass" else shape[1:]
