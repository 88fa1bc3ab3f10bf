"""Reading datasets batch by batch: those of TensorFlow, Keras and torch, and other iterables."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from saikei.batches import ArrayData, as_numpy, need_labels, parts_of, sample_count
from saikei.errors import DataError, TrainingWarning

KINDS = "(x, y) arrays, a tf.data.Dataset, a keras.utils.PyDataset or a torch DataLoader"
BATCH_IT = (
    "batch it first, for example dataset.batch(32) or torch.utils.data.DataLoader(dataset, 32)"
)

# Batches of data of unknown length after which it may have no end, and after which it is stopped.
MANY = 10_000
ENDLESS = 1_000_000


def batch_count(dataset: Any) -> int | None:
    """Batches of a `keras.utils.PyDataset`; `None` where it has no end, or does not know."""
    try:
        count = dataset.num_batches
    except NotImplementedError:
        return None
    return None if count is None else int(count)


def dataset_length(dataset: Any, name: str) -> int | None:
    """Batches in one pass over a dataset; `None` where it does not know.

    Raises:
        DataError: When the dataset never ends.
    """
    import keras

    if isinstance(dataset, keras.utils.PyDataset):
        count = batch_count(dataset)
        if count is None:
            raise DataError(f"The {name} data never ends: give its PyDataset a length.")
        return count
    cardinality = getattr(dataset, "cardinality", None)
    if callable(cardinality) and int(cardinality()) == -1:
        raise DataError(
            f"The {name} data never ends: bound it, for example with dataset.take(1000)."
        )
    try:
        return len(dataset)
    except (TypeError, NotImplementedError):
        return None


def check_end(batches: int, name: str) -> None:
    """Warn of a pass over data of unknown length that may have no end, and then stop it.

    Args:
        batches: How many batches the pass has read so far.
        name: The name of the argument, for messages.

    Raises:
        DataError: When it has read `ENDLESS` batches.

    Warns:
        TrainingWarning: When it has read `MANY`.
    """
    fix = "bound it, for example with dataset.take(1000), or give it a length"
    if batches == MANY:
        warnings.warn(
            f"The {name} data has given {MANY:,} batches, and its length is not known: if it "
            f"never ends, {fix}.",
            TrainingWarning,
            stacklevel=2,
        )
    if batches >= ENDLESS:
        raise DataError(f"The {name} data has given {ENDLESS:,} batches and no end: {fix}.")


def dataset_batches(
    dataset: Any, name: str, *, labels: bool = True, inputs: int = 1, some: bool = False
) -> Iterator[ArrayData]:
    """One pass over a dataset, each batch with its parts as they came.

    Args:
        dataset: A `tf.data.Dataset`, `keras.utils.PyDataset`, torch `DataLoader` or any other
            iterable of batches.
        name: The argument's name, for messages.
        labels: Whether there have to be some.
        inputs: How many inputs the model takes.
        some: Whether the caller takes a few batches and never comes back, so that the data may be
            without end, and readable only once.

    Raises:
        DataError: When it is no dataset, can be read only once, never ends, or has no labels
            where they are needed.
    """
    import keras

    check_dataset(dataset, name, once=some)
    known = some or dataset_length(dataset, name) is not None
    count = batch_count(dataset) if isinstance(dataset, keras.utils.PyDataset) else None
    batches = iter(dataset) if count is None else (dataset[index] for index in range(count))
    for number, batch in enumerate(batches, start=1):
        if not known:
            check_end(number, name)
        parts = ArrayData(*parts_of(batch, name, inputs))
        if labels:
            need_labels(parts.y, name)
        yield parts


def first_batch(dataset: Any, name: str, *, labels: bool = True, inputs: int = 1) -> ArrayData:
    """The first batch of a dataset, as arrays.

    Raises:
        DataError: When there is none, or it holds no labels where they are needed.
    """
    batches = dataset_batches(dataset, name, labels=labels, inputs=inputs)
    batch = next(batches, None)
    if batch is None:
        raise DataError(f"The {name} data is empty: give at least one batch.")
    return to_arrays(batch, name)


def to_arrays(batch: ArrayData, name: str) -> ArrayData:
    """A batch as arrays of one length.

    Raises:
        DataError: When it holds single samples, or its arrays have different lengths.
    """
    from keras import tree

    made = tree.map_structure(
        lambda leaf: None if leaf is None else as_numpy(leaf), (batch.x, batch.y, batch.weights)
    )
    if any(leaf is not None and leaf.ndim == 0 for leaf in tree.flatten(made)):
        raise DataError(f"The {name} data gives single samples, not batches of them: {BATCH_IT}.")
    sample_count(made, name)
    return ArrayData(*made)


def join_batches(batches: Sequence[ArrayData], name: str) -> ArrayData:
    """Batches one behind the other.

    Raises:
        DataError: When there is none, or they have other nesting or shapes than each other.
    """
    from keras import tree

    def join(*parts: Any) -> Any:
        return None if all(part is None for part in parts) else np.concatenate(parts)

    if not batches:
        raise DataError(f"The {name} data is empty: give at least one batch.")
    parts = [(batch.x, batch.y, batch.weights) for batch in batches]
    try:
        return ArrayData(*tree.map_structure(join, *parts))
    except (ValueError, TypeError) as error:
        raise DataError(
            f"The batches of the {name} data do not fit together: give all of them the "
            "same inputs and outputs, with samples of one shape."
        ) from error


def check_dataset(dataset: Any, name: str, once: bool = False) -> None:
    """Refuse what is no dataset, or one that can be read only once."""
    if hasattr(dataset, "__next__") and not once:
        raise DataError(
            f"The {name} data is a generator, which can be read only once: give {KINDS}."
        )
    readable = isinstance(dataset, Iterable) or hasattr(dataset, "__getitem__")
    if not readable or isinstance(dataset, (str, bytes, type)):
        raise DataError(f"The {name} data is of type {type(dataset).__name__}: give {KINDS}.")
