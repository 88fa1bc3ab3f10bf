"""Data that users hand in: gathered from a dataset, checked and split.

Keras is imported where it is needed, so that wrong data is refused at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from saikei.errors import DataError

if TYPE_CHECKING:
    import keras

# Inputs and labels; either may be nested as the model nests its inputs and outputs.
Arrays: TypeAlias = tuple[Any, Any]


@dataclass(frozen=True)
class Splits:
    """The parts of a data set, each `(x, y)` with one sample a row.

    Args:
        train: to train on.
        validation: to choose by; `None` where it has to be held out.
        test: to look at once, at the end; `None` where there is none.
    """

    train: Arrays
    validation: Arrays | None = None
    test: Arrays | None = None


def arrays(data: Any, name: str = "given") -> Arrays:
    """Gather anything that `keras.Model.fit` takes into arrays, in one pass.

    Args:
        data: `(x, y)`, a `tf.data.Dataset`, a `keras.utils.PyDataset` or a torch `DataLoader`.
        name: of the argument, for messages.

    Returns:
        `(x, y)`, nested as they came.

    Raises:
        DataError: when there are no labels, there are sample weights, there are numbers where
            arrays should be, or the dataset is empty, endless or of an unknown kind.
    """
    from keras import tree

    def gathered(pair: Arrays) -> Arrays:
        x, y = tree.map_structure(lambda leaf: _numpy(leaf, name), pair)
        return x, y

    if isinstance(data, tuple):
        return gathered(_pair(data, name))
    batches = [gathered(_pair(batch, name)) for batch in _batches(data, name)]
    if not batches:
        raise DataError(f"The {name} data is empty: give at least one batch.")
    try:
        x, y = tree.map_structure(lambda *parts: np.concatenate(parts), *batches)
    except (ValueError, TypeError) as error:
        raise DataError(
            f"The batches of the {name} data do not fit together: give all of them the "
            "same inputs and outputs, with samples of one shape."
        ) from error
    return x, y


def check_data(model: keras.Model, data: Any, name: str = "train") -> None:
    """Refuse data that a model cannot be trained on or scored by.

    Whether the labels fit the outputs depends on the loss, and is for
    `saikei.training.infer_task` to say.

    Args:
        model: a built model.
        data: what `arrays` takes.
        name: of the data, for messages.

    Raises:
        DataError: when it is empty, holds NaN or infinite numbers, has other shapes than the
            model's inputs, or another number of labels than of samples.
    """
    from keras import tree

    x, y = arrays(data, name)
    inputs = _inputs_by_name(model, x, name)
    for label, array in inputs.items():
        check_values(array, label)
    for array in tree.flatten(y):
        check_values(array, f"labels of the {name} data")
    _sample_count((x, y), name)


def check_shapes(model: keras.Model, x: Any, name: str = "given") -> None:
    """Refuse inputs of other shapes than a model takes; a dictionary may hold others besides.

    Args:
        model: a built model.
        x: arrays as it takes them.
        name: of the data, for messages.

    Raises:
        DataError: naming the input, its shape and the one that the model takes.
    """
    inputs = getattr(model, "inputs", None)
    if inputs is None:
        return
    if isinstance(x, dict):
        takes = getattr(model, "input", None)
        names = set(takes) if isinstance(takes, dict) else {tensor.name for tensor in inputs}
        x = {key: array for key, array in x.items() if key in names}
    _inputs_by_name(model, x, name)


def hold_out(
    data: Any, share: float = 0.2, seed: int = 0, stratify: bool = True
) -> tuple[Arrays, Arrays]:
    """Split a random part off.

    Args:
        data: what `arrays` takes.
        share: of the samples that are held out, between 0 and 1.
        seed: of the choice.
        stratify: hold out the same share of each class; the only sample of its class stays in
            the rest. Labels are classes when they are one whole number or one one-hot row a
            sample, and neither part is too small to have all of them; other labels are split
            at random.

    Returns:
        The rest and the part held out, both in the order in which they came.

    Raises:
        DataError: when the share leaves one of the two empty, or the arrays have different
            lengths.
    """
    from sklearn.model_selection import train_test_split

    x, y = arrays(data)
    count = _sample_count((x, y))
    held = round(share * count) if 0 < share < 1 else 0
    if not 0 < held < count:
        raise DataError(f"A share of {share} cannot be held out of {count} samples: give more.")
    rows, classes = np.arange(count), _classes(y) if stratify else None
    if classes is not None:
        rows, classes = _strata(classes, held)
    # scikit-learn takes seeds of 32 bits.
    _, chosen = train_test_split(rows, test_size=held, random_state=seed % 2**32, stratify=classes)
    mask = np.isin(np.arange(count), chosen)
    return _rows((x, y), ~mask), _rows((x, y), mask)


def _pair(data: Any, name: str) -> Arrays:
    if not isinstance(data, (tuple, list)) or len(data) < 2:
        raise DataError(f"The {name} data holds no labels: give (x, y).")
    if len(data) > 2:
        raise DataError(
            f"The {name} data holds {len(data)} parts: give (x, y); sample weights are not used."
        )
    return data[0], data[1]


def _numpy(value: Any, name: str) -> NDArray[Any]:
    import keras

    array = np.asarray(keras.ops.convert_to_numpy(value) if keras.ops.is_tensor(value) else value)
    if array.ndim == 0:
        # Keras takes lists for several inputs or outputs, so a list of numbers is as many.
        raise DataError(
            f"The {name} data holds a value of type {type(value).__name__} where an array is "
            "expected: give (x, y) as NumPy arrays, lists of numbers by numpy.asarray."
        )
    return array


def _batches(data: Any, name: str) -> Iterator[Any]:
    import keras

    if isinstance(data, keras.utils.PyDataset):
        if data.num_batches is None:
            raise DataError(f"The {name} data never ends: give its PyDataset a length.")
        return (data[index] for index in range(data.num_batches))
    cardinality = getattr(data, "cardinality", None)
    if callable(cardinality) and int(cardinality()) == -1:
        raise DataError(f"The {name} data never ends: bound it, for example with take(1000).")
    if isinstance(data, Iterable) and not isinstance(data, (np.ndarray, dict, str, bytes)):
        return iter(data)
    raise DataError(
        f"The {name} data is of type {type(data).__name__}: give (x, y) arrays, a "
        "tf.data.Dataset, a keras.utils.PyDataset or a torch DataLoader."
    )


def _inputs_by_name(model: keras.Model, x: Any, name: str) -> dict[str, NDArray[Any]]:
    """The arrays, under names for messages, once their shapes fit the model's inputs."""
    from keras import tree

    inputs = {tensor.name: tensor for tensor in model.inputs}
    if isinstance(x, dict) and isinstance(getattr(model, "input", None), dict):
        inputs = dict(model.input)
    if isinstance(x, dict) and set(x) != set(inputs):
        raise DataError(
            f"The {name} data has inputs {sorted(x)}, but model '{model.name}' takes "
            f"{sorted(inputs)}: name them alike."
        )
    given = [x[key] for key in inputs] if isinstance(x, dict) else tree.flatten(x)
    if len(given) != len(inputs):
        raise DataError(
            f"The {name} data has {len(given)} inputs, but model '{model.name}' takes "
            f"{len(inputs)}: give one array for each."
        )
    found: dict[str, NDArray[Any]] = {}
    for (key, tensor), array in zip(inputs.items(), given, strict=True):
        label = f"{name} data" if len(inputs) == 1 else f"{name} data for input '{key}'"
        _check_shape(array, tuple(tensor.shape), label, model.name)
        found[label] = array
    return found


def _check_shape(
    array: NDArray[Any], expected: tuple[int | None, ...], label: str, model: str
) -> None:
    fits = array.ndim == len(expected) and all(
        want in (None, have) for want, have in zip(expected[1:], array.shape[1:], strict=True)
    )
    if fits:
        return
    wanted = ", ".join("any" if size is None else str(size) for size in expected[1:])
    mend = "reshape it"
    if array.ndim == len(expected) - 1 and expected[-1] == 1:
        mend = "add the channel axis with x[..., None]"
    raise DataError(
        f"The {label} has shape {array.shape}, but model '{model}' takes (n, {wanted}): {mend}."
    )


def check_values(array: NDArray[Any], label: str) -> None:
    """Refuse an array that is empty, or holds something else than numbers.

    Args:
        array: one row for each sample.
        label: what it is, for messages.

    Raises:
        DataError: naming the array and, of NaN, the first row.
    """
    if array.dtype.kind not in "biuf":
        raise DataError(
            f"The {label} is of type {array.dtype}: give numbers, with classes numbered from 0."
        )
    if array.ndim == 0:
        raise DataError(f"The {label} is a single number: give one row for each sample.")
    if len(array) == 0:
        raise DataError(f"The {label} is empty: give at least one sample.")
    if array.dtype.kind != "f":
        return
    bad = ~np.isfinite(array).reshape(len(array), -1).all(axis=1)
    if bad.any():
        raise DataError(
            f"The {label} holds NaN or infinite numbers in {int(bad.sum()):,} of {len(array):,} "
            f"samples, first in row {int(bad.argmax())}: remove or fill them."
        )


def _sample_count(data: Arrays, name: str = "given") -> int:
    from keras import tree

    lengths = {len(array) for array in tree.flatten(data)}
    if len(lengths) != 1:
        shown = " and ".join(f"{length:,}" for length in sorted(lengths))
        raise DataError(
            f"The {name} data has arrays of {shown or 'no'} samples: give one label for each "
            "sample."
        )
    return int(lengths.pop())


def _classes(y: Any) -> NDArray[Any] | None:
    """The class of each sample; `None` where labels are no classes."""
    if not isinstance(y, np.ndarray) or y.dtype.kind not in "biuf":
        return None
    labels = y
    if y.ndim == 2 and y.shape[1] > 1:
        one_hot = np.isin(y, (0, 1)).all() and (y.sum(axis=1) == 1).all()
        if not one_hot:
            return None
        labels = y.argmax(axis=1)
    if labels.size != len(labels) or (labels != np.round(labels)).any():
        return None
    return labels.reshape(-1)


def _strata(classes: NDArray[Any], held: int) -> tuple[NDArray[np.int64], NDArray[Any] | None]:
    """The rows to hold out from, and their classes; all and `None` where strata are too small."""
    _, inverse, counts = np.unique(classes, return_inverse=True, return_counts=True)
    rows = np.flatnonzero(counts[inverse] > 1)
    if len(counts) > held or int((counts > 1).sum()) > len(rows) - held:
        return np.arange(len(classes)), None
    return rows, classes[rows]


def _rows(data: Arrays, mask: NDArray[np.bool_]) -> Arrays:
    from keras import tree

    x, y = tree.map_structure(lambda array: array[mask], data)
    return x, y
