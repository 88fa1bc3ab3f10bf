"""A model and its data made ready to train: checked, put in order, with the task known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras

from saikei.training.batches import (
    ArrayData,
    ShuffledBatches,
    as_arrays,
    dataset_length,
    first_batch,
)
from saikei.training.outputs import read_outputs
from saikei.training.task import Task, infer_tasks


@dataclass(frozen=True)
class Prepared:
    """Data in the form that the training loop takes.

    Args:
        arrays: the training arrays; `None` when a dataset was given.
        dataset: the dataset as it was given; `None` when arrays were.
        steps: batches an epoch; `None` where the dataset does not know.
        validation: arrays or a dataset; `None` when there is none.
        tasks: one for each output.
    """

    arrays: ArrayData | None
    dataset: Any
    steps: int | None
    validation: ArrayData | Any | None
    tasks: tuple[Task, ...]

    def batches(self, batch_size: int, seed: int) -> Any:
        """What to hand to a Keras `fit`."""
        if self.arrays is None:
            return self.dataset
        return ShuffledBatches(self.arrays, batch_size, seed)


def prepare(
    model: keras.Model, train: Any, validation: Any, loss: Any, batch_size: int
) -> Prepared:
    """Check a model and its data, and infer what is trained.

    Args:
        model: a built model.
        train: `(x, y)` arrays, `(x, y, sample_weight)`, or a dataset that `keras.Model.fit` takes.
        validation: likewise, or `None`.
        loss: a Keras loss, one for each output, or `None` to infer it.
        batch_size: samples a step, for arrays.

    Raises:
        ModelError: when the model is none, or is not built.
        DataError: when the data is empty, or the labels do not fit the model.
    """
    arrays = as_arrays(train, "train")
    labels = first_batch(train, "train")[1] if arrays is None else arrays.y
    steps = dataset_length(train, "train") if arrays is None else -(-len(arrays) // batch_size)
    held_out = None if validation is None else _held_out(model, validation, loss)
    return Prepared(
        arrays=arrays,
        dataset=train if arrays is None else None,
        steps=steps,
        validation=held_out,
        tasks=infer_tasks(model, labels, loss),
    )


def _held_out(model: keras.Model, validation: Any, loss: Any) -> ArrayData | Any:
    arrays = as_arrays(validation, "validation")
    if arrays is None:
        dataset_length(validation, "validation")
    labels = first_batch(validation, "validation")[1] if arrays is None else arrays.y
    infer_tasks(model, labels, loss)
    return validation if arrays is None else arrays


def compile_for(
    model: keras.Model, tasks: Sequence[Task], optimizer: keras.optimizers.Optimizer
) -> None:
    """Compile a model with the loss and metric of each output."""
    outputs = read_outputs(model)
    model.compile(
        optimizer=optimizer,
        loss=outputs.pack([task.loss for task in tasks]),
        metrics=outputs.pack([[task.keras_metric()] for task in tasks]),
        jit_compile=without_xla(),
    )


def compile_fresh(model: keras.Model, tasks: Sequence[Task], learning_rate: float) -> None:
    """Compile a model with an Adam that has made no step yet."""
    optimizer = keras.optimizers.Adam(learning_rate)
    compile_for(model, tasks, optimizer)
    # Keras warns when it loads a file whose optimizer was never built.
    optimizer.build(model.trainable_variables)


def without_xla() -> bool | str:
    """What to compile with: on TensorFlow, XLA costs small models more than it gains them."""
    return False if keras.backend.backend() == "tensorflow" else "auto"
