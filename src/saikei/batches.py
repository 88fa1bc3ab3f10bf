"""Reading what users hand in as data: inputs, labels and weights, as arrays or as batches.

The one place that knows the forms that `keras.Model.fit` takes. Keras is imported where it is
needed, so that wrong data is refused at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saikei.errors import DataError, in_one_line
from saikei.tensors import to_known

Array = NDArray[Any]

KINDS = "(x, y) arrays, a tf.data.Dataset, a keras.utils.PyDataset or a torch DataLoader"
BATCH_IT = (
    "batch it first, for example dataset.batch(32) or torch.utils.data.DataLoader(dataset, 32)"
)


@dataclass(frozen=True)
class ArrayData:
    """Data that is in memory: nested structures of arrays with one sample a row.

    Args:
        x: Inputs, as the model takes them.
        y: Labels, as the model gives outputs; `None` where there are none.
        weights: Sample weights, if any.
    """

    x: Any
    y: Any = None
    weights: Any = None

    def __len__(self) -> int:
        from keras import tree

        return len(tree.flatten(self.x)[0])

    @property
    def parts(self) -> tuple[Any, ...]:
        """`(x, y)`, or `(x, y, sample_weight)`."""
        return (self.x, self.y) if self.weights is None else (self.x, self.y, self.weights)

    def take(self, rows: Any) -> ArrayData:
        """Some of the rows: a slice or indices."""
        from keras import tree

        return ArrayData(
            *(
                part if part is None else tree.map_structure(lambda leaf: leaf[rows], part)
                for part in (self.x, self.y, self.weights)
            )
        )


def parts_of(given: Any, name: str, inputs: int = 1) -> tuple[Any, Any, Any]:
    """Inputs, labels and sample weights out of arrays or a batch, as Keras distinguishes them.

    Args:
        given: `x`, `(x,)`, `(x, y)` or `(x, y, sample_weight)`, each nested in any way.
        name: The name of the argument, for messages.
        inputs: How many inputs the model takes; a list of as many arrays is its inputs.

    Returns:
        All three; `None` for labels or weights that there are not.

    Raises:
        DataError: When there are more parts than three, or none.
    """
    if not isinstance(given, (tuple, list)):
        return given, None, None
    listed = isinstance(given, list) and len(given) == inputs > 1
    if listed and all(_is_array(part) for part in given):
        return given, None, None
    if not 1 <= len(given) <= 3:
        raise DataError(
            f"The {name} data is a {type(given).__name__} of {len(given)}: give x, (x, y) or "
            "(x, y, sample_weight)."
        )
    x, y, weights = (*given, None, None)[:3]
    return x, y, weights


def as_arrays(
    data: Any, name: str, *, labels: bool = True, inputs: int = 1, as_is: bool = False
) -> ArrayData | None:
    """Data that was handed in as arrays; `None` for any kind of dataset.

    Args:
        data: What a caller handed in: `x`, `(x,)`, `(x, y)` or `(x, y, sample_weight)`.
        name: The argument's name, for messages.
        labels: Whether there have to be some.
        inputs: How many inputs the model takes.
        as_is: Whether float64 stays, rather than becoming what Keras computes in.

    Raises:
        DataError: When the arrays are empty or of different lengths, hold no numbers, or labels
            are needed and there are none.
    """
    if not _is_in_memory(data):
        return None
    parts = ArrayData(*(_to_arrays(part, name, as_is) for part in parts_of(data, name, inputs)))
    if labels:
        need_labels(parts.y, name)
    sample_count((parts.x, parts.y, parts.weights), name)
    return parts


def need_labels(y: Any, name: str) -> None:
    """Refuse data without labels where they are needed."""
    from keras import tree

    if y is None or any(leaf is None for leaf in tree.flatten(y)):
        raise DataError(f"The {name} data holds no labels, which are needed here: give (x, y).")


def sample_count(data: Any, name: str) -> int:
    """How many samples there are, in all arrays alike.

    Args:
        data: Arrays with one sample a row, nested in any way; `None` counts as no array.
        name: The name of the argument, for messages.

    Raises:
        DataError: When the arrays have different lengths, or none has a sample.
    """
    from keras import tree

    lengths = {len(array) for array in tree.flatten(data) if array is not None}
    if len(lengths) != 1:
        shown = " and ".join(f"{length:,}" for length in sorted(lengths))
        raise DataError(
            f"The {name} data has arrays of {shown or 'no'} samples: give one row of each for "
            "each sample."
        )
    if lengths == {0}:
        raise DataError(f"The {name} data is empty: give at least one sample.")
    return int(lengths.pop())


def as_numpy(leaf: Any) -> Array:
    """An array out of a tensor of the backend, a table, a list or an array.

    Arrays of Python objects that are all numbers, as nullable columns of tables are, become
    arrays of numbers; so do those of arrays of one shape. Half precision that NumPy does not
    know by itself becomes float32.
    """
    try:
        array = to_known(leaf)
    except (TypeError, ValueError, AttributeError) as error:
        # Ragged and sparse tensors, and lists of rows of different lengths.
        raise DataError(
            f"A value of type {type(leaf).__name__} cannot be read as an array: give a dense array "
            "with one row for each sample."
        ) from error
    if array.dtype.kind == "O" and array.ndim:
        array = _of_objects(array)
    if array.dtype.kind == "T":
        # Strings of any length, which no backend takes as they are.
        array = array.astype(object)
    return array


def _of_objects(array: Array) -> Array:
    try:
        made = np.array(array.tolist())
    except (TypeError, ValueError):
        return array
    # Text stays as it came: the backend makes its own strings of it.
    return made if made.dtype.kind in "biuf" and len(made) == len(array) else array


def is_text(array: Array) -> bool:
    """Whether an array holds text: strings of NumPy, or Python objects that are no numbers."""
    return array.dtype.kind in "OSUT"


def for_keras(x: Any) -> Any:
    """Inputs as `keras.Model.fit` and `predict` take them: texts as tensors, all else as it is.

    Args:
        x: Arrays, nested in any way.

    Raises:
        DataError: When an array of objects holds something else than texts.
    """
    import keras
    from keras import tree

    def one(leaf: Any) -> Any:
        if not isinstance(leaf, np.ndarray) or not is_text(leaf):
            return leaf
        try:
            return keras.ops.convert_to_tensor(leaf)
        except Exception as error:
            raise DataError(
                f"An array of type {leaf.dtype} cannot be read as text ({in_one_line(error)}): "
                "give an array of strings alone."
            ) from error

    return tree.map_structure(one, x)


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
    if not some:
        dataset_length(dataset, name)
    count = batch_count(dataset) if isinstance(dataset, keras.utils.PyDataset) else None
    batches = iter(dataset) if count is None else (dataset[index] for index in range(count))
    for batch in batches:
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


def _is_in_memory(data: Any) -> bool:
    """Whether data is arrays; a list of tuples is a list of batches."""
    if isinstance(data, list):
        return bool(data) and not isinstance(data[0], tuple)
    return isinstance(data, (tuple, dict)) or _is_array(data)


def _is_array(value: Any) -> bool:
    import keras

    if isinstance(value, (np.ndarray, np.generic)) or keras.ops.is_tensor(value):
        return True
    # Tables and columns of pandas and the like; datasets have no such method.
    return hasattr(value, "__array__") or hasattr(value, "__array_interface__")


def _to_arrays(part: Any, name: str, as_is: bool) -> Any:
    from keras import tree

    if part is None:
        return None
    change = (lambda array: array) if as_is else _in_floatx
    return tree.map_structure(
        lambda leaf: None if leaf is None else change(_filled(leaf, name)), part
    )


def _filled(leaf: Any, name: str) -> Array:
    array = as_numpy(leaf)
    if array.ndim == 0:
        # Keras takes lists for several inputs or outputs, so a list of numbers is as many.
        raise DataError(
            f"The {name} data holds a value of type {type(leaf).__name__} where an array is "
            "expected: give NumPy arrays, lists of numbers by numpy.asarray."
        )
    return array


def _in_floatx(array: Array) -> Array:
    import keras

    # Keras would convert doubles at every batch.
    return array.astype(keras.config.floatx()) if array.dtype == np.float64 else array
