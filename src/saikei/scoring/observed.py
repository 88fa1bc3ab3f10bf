"""Reading labels from data: whole, with what counts of them, beside a model's predictions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import keras

from saikei.batches import Array, ArrayData
from saikei.errors import InputError
from saikei.for_each_output import flat_weights
from saikei.scoring.inference import flat_labels, infer_tasks
from saikei.scoring.labelled import Labelled
from saikei.scoring.labels import Labels, count
from saikei.scoring.metrics import find_metric
from saikei.scoring.outputs import Outputs, predicts_tokens
from saikei.scoring.predictions import Predictions, predict_all
from saikei.scoring.task import Task


def observe(
    model: keras.Model,
    data: Any,
    batch_size: int = 256,
    loss: Any = None,
    metric: Any = None,
    outputs: Outputs | None = None,
) -> tuple[Labelled, list[Array]]:
    """Predict data with a model, and count what the loss counts of its labels.

    Args:
        model: A built model.
        data: `(x, y)` or `(x, y, sample_weight)` arrays or a dataset.
        batch_size: Samples a step, for arrays.
        loss: A Keras loss or its name; `None` as for `infer_tasks`.
        metric: The name of the metric, as in `evaluate`; `None` takes the metric of the task.
        outputs: The model's outputs, where it was read already.

    Returns:
        The labels, and one array of predictions for each output.

    Raises:
        DataError: When the data does not fit the model, or nothing of it counts.
        InputError: When there is no such metric, or the model has several outputs.
    """
    predicted = predict_all(model, data, batch_size)
    tasks = infer_tasks(model, predicted.y, loss, outputs)
    labels = counted_labels(model, tasks, predicted, outputs)
    if metric is None:
        return Labelled(tasks, labels), predicted.outputs
    if len(tasks) != 1:
        raise InputError(
            f"metric={metric!r} is for one output, and model '{model.name}' has {len(tasks)}: "
            "leave it out for the summed loss."
        )
    if isinstance(metric, str) and metric == "nats" and tasks[0].kind == "multiclass":
        return Labelled(tasks, labels, nats=True), predicted.outputs
    return Labelled(tasks, labels, metric=find_metric(metric, tasks[0])), predicted.outputs


def held_out(model: keras.Model, data: tuple[Any, ...], metric: Any = None) -> Labelled:
    """Arrays that a model, and others of the same task, can be scored on many times.

    Args:
        model: A built model; the loss that it is compiled with, if any, decides the task.
        data: `(x, y)` or `(x, y, sample_weight)` arrays.
        metric: The name of the metric, as in `evaluate`; `None` takes `"nats"` for a language
            model and the metric of the task for others.

    Raises:
        DataError: When the data does not fit the model, or nothing of it counts.
        InputError: When there is no such metric, or the model has several outputs.
    """
    if metric is None and predicts_tokens(model):
        metric = "nats"
    labelled, _ = observe(model, data, metric=metric)
    return replace(labelled, x=data[0])


def counted_labels(
    model: keras.Model,
    tasks: Sequence[Task],
    predicted: Predictions | ArrayData,
    read: Outputs | None = None,
) -> tuple[Labels, ...]:
    """The labels of each output, with what counts of them.

    Args:
        model: Whose outputs the labels are of.
        tasks: What each output learns.
        predicted: Labels, weights and the masks of the outputs, or data, whose masks are not
            known.
        read: The model's outputs, where it was read already.

    Raises:
        DataError: When labels, weights or masks do not fit each other, or nothing counts.
    """
    labels = flat_labels(model, predicted.y, read)
    weights = flat_weights(predicted.weights, len(labels))
    masks = [None] * len(labels) if isinstance(predicted, ArrayData) else predicted.masks
    return tuple(
        count(y, task.known(y), mask, weight)
        for task, y, mask, weight in zip(tasks, labels, masks, weights, strict=True)
    )
