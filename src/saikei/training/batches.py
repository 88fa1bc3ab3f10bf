"""Training data as Keras takes it, shuffled from our own seed when it is arrays."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import tree

from saikei.errors import DataError

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class ArrayData:
    """Data that is in memory: nested structures of arrays with one sample a row.

    Args:
        x: inputs, as the model takes them.
        y: labels, as the model gives outputs.
        weights: sample weights, if any.
    """

    x: Any
    y: Any
    weights: Any = None

    def __len__(self) -> int:
        return len(tree.flatten(self.x)[0])


def as_arrays(data: Any, name: str) -> ArrayData | None:
    """Arrays out of `(x, y)` or `(x, y, sample_weight)`; `None` for any kind of dataset.

    Args:
        data: what a caller handed in as training or validation data.
        name: the argument's name, for messages.

    Raises:
        DataError: when the arrays are empty or of different lengths, or there are no labels.
    """
    if isinstance(data, list) and len(data) == 2:
        data = tuple(data)
    if not isinstance(data, tuple):
        if isinstance(data, (np.ndarray, dict)) or keras.ops.is_tensor(data):
            raise DataError(f"'{name}' holds no labels: give a tuple (x, y).")
        return None
    if len(data) not in (2, 3):
        raise DataError(
            f"'{name}' is a tuple of {len(data)}: give (x, y) or (x, y, sample_weight)."
        )
    parts = ArrayData(*(tree.map_structure(_as_float32, part) for part in data))
    leaves = tree.flatten((parts.x, parts.y, parts.weights))
    lengths = [len(leaf) for leaf in leaves if leaf is not None]
    if min(lengths) == 0:
        raise DataError(f"'{name}' is empty: give at least one sample.")
    if len(set(lengths)) != 1:
        raise DataError(
            f"The arrays of '{name}' have different lengths, {lengths}: x and y need one row a "
            "sample."
        )
    return parts


def as_numpy(leaf: Any) -> Array:
    """An array out of a tensor of the backend, a list or an array."""
    return np.asarray(keras.ops.convert_to_numpy(leaf) if keras.ops.is_tensor(leaf) else leaf)


def _as_float32(leaf: Any) -> Any:
    if leaf is None:
        return None
    array = as_numpy(leaf)
    if array.ndim == 0:
        raise DataError(f"{leaf!r} is a single number where an array of samples is expected.")
    # Keras would convert doubles at every batch.
    return array.astype(keras.config.floatx()) if array.dtype == np.float64 else array


class ShuffledBatches(keras.utils.PyDataset):
    """Batches of arrays in an order that depends on the seed and the epoch alone.

    Keras's own shuffling of arrays draws from the backend's global generator, which a library
    should not seed.
    """

    def __init__(self, data: ArrayData, batch_size: int, seed: int) -> None:
        super().__init__()
        weights = () if data.weights is None else (data.weights,)
        # A tf.data pipeline, which Keras puts around this, takes a list for a tensor.
        self._parts = tree.lists_to_tuples((data.x, data.y, *weights))
        self._size = len(data)
        self._batch_size = batch_size
        self._seed = seed
        self._epoch = 0
        self._order = self._shuffled()

    def __len__(self) -> int:
        return -(-self._size // self._batch_size)

    def __getitem__(self, index: int) -> Any:
        rows = self._order[index * self._batch_size : (index + 1) * self._batch_size]
        return tree.map_structure(lambda leaf: leaf[rows], self._parts)

    def on_epoch_end(self) -> None:
        """Draw the next epoch's order."""
        self._epoch += 1
        self._order = self._shuffled()

    def _shuffled(self) -> Array:
        return np.random.default_rng([self._seed, self._epoch]).permutation(self._size)


def dataset_length(dataset: Any, name: str) -> int | None:
    """Batches in one pass over a dataset; `None` where it does not know.

    Raises:
        DataError: when the dataset never ends.
    """
    cardinality = getattr(dataset, "cardinality", None)
    if callable(cardinality) and int(cardinality()) == -1:
        raise DataError(f"'{name}' never ends: bound it, for example with dataset.take(1000).")
    try:
        return len(dataset)
    except TypeError:
        return None


def dataset_batches(dataset: Any, name: str) -> Iterator[tuple[Any, ...]]:
    """One pass over a dataset, each batch as a tuple `(x, y)` or `(x, y, sample_weight)`.

    Raises:
        DataError: when it can be read only once, or its batches have no labels.
    """
    if iter_is_spent_by_reading(dataset):
        raise DataError(
            f"'{name}' is a generator, which can be read only once: give arrays, a "
            "tf.data.Dataset, a keras.utils.PyDataset or a torch DataLoader."
        )
    batches = (
        (dataset[index] for index in range(len(dataset)))
        if isinstance(dataset, keras.utils.PyDataset)
        else iter(dataset)
    )
    for batch in batches:
        if not isinstance(batch, (tuple, list)) or len(batch) not in (2, 3):
            raise DataError(f"The batches of '{name}' hold no labels: they must be (x, y).")
        yield tuple(batch)


def iter_is_spent_by_reading(dataset: Any) -> bool:
    """Whether the data is a one-shot iterator such as a generator."""
    return hasattr(dataset, "__next__")


def first_batch(dataset: Any, name: str) -> tuple[Any, ...]:
    """The first batch of a dataset.

    Raises:
        DataError: when there is none, or it is not `(x, y)`.
    """
    if not hasattr(dataset, "__iter__") and not hasattr(dataset, "__getitem__"):
        raise DataError(
            f"'{name}' is a {type(dataset).__name__}: give (x, y) arrays, a tf.data.Dataset, a "
            "keras.utils.PyDataset or a torch DataLoader."
        )
    batch = next(iter(dataset_batches(dataset, name)), None)
    if batch is None:
        raise DataError(f"'{name}' is empty: give at least one batch.")
    return batch
