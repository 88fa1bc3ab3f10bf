"""Labels, what counts of them, and what a model predicts for the same rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import tree

from saikei.batches import (
    Array,
    ArrayData,
    as_arrays,
    as_numpy,
    dataset_batches,
    join_batches,
    to_arrays,
)
from saikei.errors import DataError
from saikei.scoring.counted import Labels, count
from saikei.scoring.predictions import Predictions, predict_all
from saikei.scoring.task import Task, flat_labels, infer_tasks


@dataclass(frozen=True, eq=False)
class Observed:
    """Labels and predictions of the same rows.

    Args:
        tasks: what each output learns.
        labels: of each output, with what counts of them.
        outputs: one array for each output.
    """

    tasks: tuple[Task, ...]
    labels: tuple[Labels, ...]
    outputs: list[Array]


def observe(model: keras.Model, data: Any, batch_size: int = 256, loss: Any = None) -> Observed:
    """Let a model predict data, and find out what counts of it.

    Args:
        model: a built model.
        data: `(x, y)` or `(x, y, sample_weight)` arrays or a dataset.
        batch_size: samples a step, for arrays.
        loss: as for `infer_tasks`.

    Raises:
        DataError: when the data does not fit the model, or nothing of it counts.
    """
    predicted = predict_all(model, data, batch_size)
    tasks = infer_tasks(model, predicted.y, loss)
    labels = counted_labels(model, tasks, predicted)
    return Observed(tasks, labels, predicted.outputs)


def counted_labels(
    model: keras.Model, tasks: Sequence[Task], predicted: Predictions | ArrayData
) -> tuple[Labels, ...]:
    """The labels of each output, with what counts of them.

    Args:
        model: whose outputs the labels are of.
        tasks: what each output learns.
        predicted: labels, weights and the masks of the outputs, or data, whose masks are not
            known.

    Raises:
        DataError: when labels, weights or masks do not fit each other, or nothing counts.
    """
    labels = flat_labels(model, predicted.y)
    weights = flat_weights(predicted.weights, len(labels))
    masks = [None] * len(labels) if isinstance(predicted, ArrayData) else predicted.masks
    return tuple(
        count(y, task.known(y), mask, weight)
        for task, y, mask, weight in zip(tasks, labels, masks, weights, strict=True)
    )


def gathered(data: Any, name: str = "given", *, inputs: int = 1, as_is: bool = True) -> ArrayData:
    """Any data as arrays, with its sample weights.

    Args:
        data: `(x, y)` or `(x, y, sample_weight)` arrays, or a dataset, which is read once.
        name: of the argument, for messages.
        inputs: how many inputs the model takes.
        as_is: whether float64 stays, rather than becoming what Keras computes in.

    Raises:
        DataError: when it is empty, endless, without labels, or its parts do not fit together.
    """
    arrays = as_arrays(data, name, inputs=inputs, as_is=as_is)
    if arrays is not None:
        return arrays
    once = hasattr(data, "__next__")
    batches = dataset_batches(data, name, inputs=inputs, some=once)
    joined = join_batches([to_arrays(batch, name) for batch in batches], name)
    made = as_arrays(joined.parts, name, inputs=inputs, as_is=as_is)
    assert made is not None
    return made


def flat_weights(weights: Any, outputs: int) -> list[Array | None]:
    """Sample weights for each output: one array stands for all of them.

    Raises:
        DataError: when there are weights for another number of outputs.
    """
    if weights is None:
        return [None] * outputs
    flat = [one if one is None else np.asarray(as_numpy(one)) for one in tree.flatten(weights)]
    if len(flat) == 1:
        flat = flat * outputs
    if len(flat) != outputs:
        raise DataError(
            f"There are sample weights for {len(flat)} outputs, but the model has {outputs}: give "
            "one array for each, or one for all."
        )
    return flat
