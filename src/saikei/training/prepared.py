"""A model and its data made ready to train: checked, put in order, with the task known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np
from keras import tree

from saikei.batches import Array, ArrayData, as_arrays, for_keras, own_arrays
from saikei.checks import check_inputs, input_count
from saikei.data import arrays as unweighted
from saikei.dataset_batches import dataset_length, first_batch
from saikei.for_each_output import flat_weights
from saikei.graph import read
from saikei.scoring.inference import flat_labels, infer_tasks
from saikei.scoring.labels import count
from saikei.scoring.outputs import read_outputs
from saikei.scoring.task import Task
from saikei.training.plan import adam
from saikei.training.sharding import filled
from saikei.training.targets import Targets


@dataclass(frozen=True)
class Prepared:
    """Data in the form that the training loop takes.

    Args:
        arrays: The training arrays; `None` when a dataset was given.
        dataset: The dataset as it was given; `None` when arrays were.
        steps: Batches an epoch; `None` where the dataset does not know.
        validation: Arrays or a dataset; `None` when there is none.
        tasks: One for each output: what it is trained on.
        final_tasks: What the model is compiled for at the end: as `tasks`, but for labels in the
            form that its loss takes where the predictions of a teacher took their place.
        labelled: Whether the training data holds labels.
        begin: The number of epochs that were trained before.
        mixup: The parameter of the Beta distribution for mixing rows of arrays; 0 mixes nothing.
    """

    arrays: ArrayData | None
    dataset: Any
    steps: int | None
    validation: ArrayData | Any | None
    tasks: tuple[Task, ...]
    final_tasks: tuple[Task, ...]
    labelled: bool = True
    begin: int = 0
    mixup: float = 0.0

    def batches(self, batch_size: int, seed: int) -> Any:
        """The batches for a Keras `fit`."""
        if self.arrays is None:
            return self.dataset
        return self.shuffled(self.arrays, batch_size, seed)

    def shuffled(self, arrays: ArrayData, batch_size: int, seed: int) -> ShuffledBatches:
        """Batches of the training arrays, or of others with the same rows."""
        return ShuffledBatches(arrays, batch_size, seed, self.begin, self.mixup)


def prepare(
    model: keras.Model,
    train: Any,
    validation: Any,
    loss: Any,
    batch_size: int,
    targets: Targets | None = None,
) -> Prepared:
    """Check a model and its data, and infer what is trained.

    Args:
        model: A built model.
        train: `(x, y)` arrays, `(x, y, sample_weight)`, or a dataset that `keras.Model.fit` takes.
        validation: Data in any of the same forms, or `None`.
        loss: A Keras loss, one for each output, or `None` to infer it.
        batch_size: Samples a step, for arrays.
        targets: What takes the place of labels where there are none; `None` needs labels.

    Raises:
        ModelError: When the model is none, or is not built.
        DataError: When the data is empty or does not fit the model, or there are no labels.
    """
    read(model)
    arrays, first = _looked_at(model, train, "train", targets is None)
    steps = -(-len(arrays) // batch_size) if arrays else dataset_length(train, "train")
    labelled, held_out, held, final = first.y is not None, None, None, None
    if validation is not None:
        held_out, held = _looked_at(model, validation, "validation", labelled)
    if targets is None or labelled:
        tasks = infer_tasks(model, first.y, loss)
        if held is not None:
            infer_tasks(model, held.y, loss)
    elif held is not None and held.y is not None:
        tasks = infer_tasks(model, held.y, loss)
    else:
        tasks, final = targets.tasks(first.x, loss), targets.labelled_tasks(first.x, loss)
        if held is not None:
            x = held_out.x if held_out else unweighted(validation, "validation", labels=False)[0]
            held_out = ArrayData(x, targets.labels(x, loss))
    return Prepared(
        arrays=None if arrays is None else fitting_weights(model, arrays),
        dataset=train if arrays is None else None,
        steps=steps,
        validation=validation if held_out is None else fitting_weights(model, held_out),
        tasks=tasks,
        final_tasks=final or tasks,
        labelled=labelled,
    )


def _looked_at(
    model: keras.Model, data: Any, name: str, labels: bool
) -> tuple[ArrayData | None, ArrayData]:
    """The arrays, if these are some, and all or the first batch of the data, checked."""
    inputs = input_count(model)
    arrays = as_arrays(data, name, labels=labels, inputs=inputs)
    first = arrays or first_batch(data, name, labels=labels, inputs=inputs)
    check_inputs(model, first.x, name, batch=arrays is None)
    if arrays is not None:
        arrays = first = own_arrays(model, arrays)
    return arrays, first


def fitting_weights(model: keras.Model, arrays: ArrayData) -> ArrayData:
    """The same data with weights as Keras takes them: one axis for each of the losses.

    Args:
        model: A built model.
        arrays: Whose weights may be one number for each row, of sequences and maps too.

    Raises:
        DataError: When weights do not fit the labels, or are negative or not finite.
    """
    if arrays.weights is None:
        return arrays
    outputs = read_outputs(model)
    labels = [None] * len(outputs.each) if arrays.y is None else flat_labels(model, arrays.y)
    fitting: list[Array] = []
    for output, y, weights in zip(
        outputs.each, labels, flat_weights(arrays.weights, len(labels)), strict=True
    ):
        if weights is None:
            fitting.append(np.ones(len(arrays), dtype="float32"))
            continue
        if y is not None:
            count(y, None, None, weights)
        missing = (1,) * max(0, len(output.shape) - 1 - weights.ndim)
        fitting.append(weights.reshape(weights.shape + missing).astype("float32"))
    return replace(arrays, weights=outputs.pack(fitting))


def compile_for(
    model: keras.Model,
    tasks: Sequence[Task],
    optimizer: keras.optimizers.Optimizer,
    plain: bool = False,
) -> None:
    """Compile a model with the loss and metric of each output.

    Args:
        model: A built model.
        tasks: What its outputs learn.
        optimizer: The optimizer to train with.
        plain: Whether the metrics are Keras's own; see `Task.keras_metric`.
    """
    outputs = read_outputs(model)
    model.compile(
        optimizer=optimizer,
        loss=outputs.pack([task.loss for task in tasks]),
        weighted_metrics=outputs.pack([[task.keras_metric(plain)] for task in tasks]),
        jit_compile=without_xla(),
    )


def compile_fresh(
    model: keras.Model, tasks: Sequence[Task], learning_rate: float, plain: bool = True
) -> None:
    """Compile a model with an Adam that has made no step yet; see `compile_for`."""
    optimizer = adam(model, learning_rate)
    compile_for(model, tasks, optimizer, plain)
    # Keras warns when it loads a file whose optimizer was never built.
    optimizer.build(model.trainable_variables)


def without_xla() -> bool | str:
    """What to compile with: on TensorFlow, XLA costs small models more than it gains them."""
    return False if keras.backend.backend() == "tensorflow" else "auto"


class ShuffledBatches(keras.utils.PyDataset):
    """Batches of arrays in an order that depends on the seed and the epoch alone.

    Keras's own shuffling of arrays draws from the backend's global generator, which a library
    should not seed.

    Args:
        data: The arrays.
        batch_size: Rows of a batch.
        seed: Seed of the order, and of what is mixed.
        epoch: The epoch that the first pass is for.
        mixup: The parameter of the Beta distribution that the share of a row is drawn from, the
            rest being another row of its batch; 0 mixes nothing.
    """

    def __init__(
        self, data: ArrayData, batch_size: int, seed: int, epoch: int = 0, mixup: float = 0.0
    ) -> None:
        super().__init__()
        weights = () if data.weights is None else (data.weights,)
        labels = () if data.y is None else (data.y,)
        # A tf.data pipeline, which Keras puts around this, takes a list for a tensor.
        self._parts = tree.lists_to_tuples((data.x, *labels, *weights))
        self._size = len(data)
        self._batch_size = batch_size
        self._seed = seed
        self._epoch = epoch
        self._mixup = mixup
        self._order = self._shuffled()

    def __len__(self) -> int:
        return -(-self._size // self._batch_size)

    def __getitem__(self, index: int) -> Any:
        rows = self._order[index * self._batch_size : (index + 1) * self._batch_size]
        rows = filled(rows, self._order)
        parts = tree.map_structure(lambda leaf: leaf[rows], self._parts)
        x, *rest = self._mixed(parts, index, len(rows)) if self._mixup else parts
        return (for_keras(x), *rest)

    def _mixed(self, parts: Any, index: int, count: int) -> Any:
        rng = np.random.default_rng([self._seed, self._epoch, index])
        share, others = rng.beta(self._mixup, self._mixup), rng.permutation(count)
        return tree.map_structure(
            lambda leaf: (share * leaf + (1 - share) * leaf[others]).astype(leaf.dtype), parts
        )

    def on_epoch_end(self) -> None:
        """Draw the next epoch's order."""
        self._epoch += 1
        self._order = self._shuffled()

    def _shuffled(self) -> Array:
        return np.random.default_rng([self._seed, self._epoch]).permutation(self._size)
