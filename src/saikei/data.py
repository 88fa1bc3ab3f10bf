"""Data that users hand in: gathered from a dataset, checked and split.

Keras is imported where it is needed, so that wrong data is refused at once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from saikei.batches import (
    BATCH_IT,
    as_arrays,
    as_numpy,
    dataset_batches,
    is_text,
    join_batches,
    sample_count,
    to_arrays,
)
from saikei.errors import DataError

if TYPE_CHECKING:
    import keras

# Inputs and labels; either may be nested as the model nests its inputs and outputs.
Arrays: TypeAlias = tuple[Any, Any]
# Numbers that are looked at in one go.
_CHUNK = 1 << 20


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


def arrays(data: Any, name: str = "given", *, labels: bool = True, inputs: int = 1) -> Arrays:
    """Gather anything that `keras.Model.fit` takes into arrays, in one pass.

    Args:
        data: `(x, y)`, a `tf.data.Dataset`, a `keras.utils.PyDataset` or a torch `DataLoader`;
            without labels also `x`, `(x,)` or `(x, None)`, or a dataset of inputs.
        name: of the argument, for messages.
        labels: whether there have to be some.
        inputs: how many inputs the model takes; a list of as many arrays is its inputs.

    Returns:
        `(x, y)`, nested as they came; `y` is `None` where there are no labels.

    Raises:
        DataError: when there are no labels and they are needed, there are sample weights, there
            are numbers where arrays should be, or the dataset is empty, endless or of an unknown
            kind.
    """
    whole = as_arrays(data, name, labels=labels, inputs=inputs, as_is=True)
    if whole is None:
        once = hasattr(data, "__next__")
        batches = dataset_batches(data, name, labels=labels, inputs=inputs, some=once)
        whole = join_batches([to_arrays(batch, name) for batch in batches], name)
    if whole.weights is not None:
        raise DataError(
            f"The {name} data holds sample weights: give (x, y); sample weights are not used."
        )
    return whole.x, whole.y


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

    x, y = arrays(data, name, inputs=input_count(model))
    check_inputs(model, x, name)
    for array in tree.flatten(y):
        check_values(array, f"labels of the {name} data")


def input_count(model: keras.Model) -> int:
    """How many inputs a model takes."""
    return len(getattr(model, "inputs", None) or [None])


def check_inputs(model: keras.Model, x: Any, name: str, batch: bool = False) -> None:
    """Refuse inputs of other shapes than a model takes, or that hold something else than numbers.

    Args:
        model: a built model; where its inputs are not known, only numbers are looked at.
        x: arrays as it takes them; a dictionary may hold others besides.
        name: of the data, for messages.
        batch: whether they come from a dataset.

    Raises:
        DataError: naming the input, and its shape and the one that the model takes, or the first
            row with NaN.
    """
    from keras import tree

    if getattr(model, "inputs", None) is None:
        found = [(f"{name} data", array, False) for array in tree.flatten(x)]
    else:
        found = [
            (label, array, str(tensor.dtype) == "string")
            for label, tensor, array in _inputs_by_name(model, x, name, batch)
        ]
    for label, array, text in found:
        if text:
            check_text(array, label)
        else:
            check_values(array, label)


def check_text(array: NDArray[Any], label: str) -> None:
    """Refuse an array for an input that takes text, where it holds something else.

    Args:
        array: one row for each sample.
        label: what it is, for messages.

    Raises:
        DataError: naming the array and the first row, or a backend that has no text.
    """
    import keras

    if not is_text(array):
        raise DataError(f"The {label} is of type {array.dtype}: give an array of strings.")
    if keras.config.backend() != "tensorflow":
        raise DataError(
            f"The {label} is text, which Keras reads on TensorFlow only, and the backend is "
            f"{keras.config.backend()}: set KERAS_BACKEND=tensorflow, or give the model numbers."
        )
    if array.dtype.kind == "O":
        wrong = [n for n, one in enumerate(array.reshape(-1)) if not isinstance(one, (str, bytes))]
        if wrong:
            found = array.reshape(-1)[wrong[0]]
            raise DataError(
                f"The {label} holds a value of type {type(found).__name__} in row "
                f"{wrong[0] // max(1, array[0].size if array.ndim > 1 else 1)}, and text is "
                "wanted: fill it with a string."
            )


def check_shapes(model: keras.Model, x: Any, name: str = "given") -> None:
    """Refuse inputs of other shapes than a model takes; a dictionary may hold others besides.

    Args:
        model: a built model.
        x: arrays as it takes them.
        name: of the data, for messages.

    Raises:
        DataError: naming the input, its shape and the one that the model takes.
    """
    if getattr(model, "inputs", None) is not None:
        _inputs_by_name(model, x, name)


def hold_out(
    data: Any, share: float = 0.2, seed: int = 0, stratify: bool = True
) -> tuple[Any, Any]:
    """Split a random part off.

    Args:
        data: what `arrays` takes, or `(x, y, sample_weight)`.
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
    from keras import tree
    from sklearn.model_selection import train_test_split

    x, y = arrays(data[:2] if _is_weighted(data) else data)
    whole: Any = (x, y)
    if _is_weighted(data):
        whole = (x, y, tree.map_structure(as_numpy, data[2]))
    count = sample_count(whole, "given")
    held = round(share * count) if 0 < share < 1 else 0
    if not 0 < held < count:
        raise DataError(f"A share of {share} cannot be held out of {count} samples: give more.")
    rows, classes = np.arange(count), _classes(y) if stratify else None
    if classes is not None:
        rows, classes = _strata(classes, held)
    # scikit-learn takes seeds of 32 bits.
    _, chosen = train_test_split(rows, test_size=held, random_state=seed % 2**32, stratify=classes)
    mask = np.isin(np.arange(count), chosen)
    return _rows(whole, ~mask), _rows(whole, mask)


def _inputs_by_name(
    model: keras.Model, x: Any, name: str, batch: bool = False
) -> list[tuple[str, Any, NDArray[Any]]]:
    """For each input a name for messages, its tensor and the array, once their shapes fit."""
    from keras import tree

    inputs = {tensor.name: tensor for tensor in model.inputs}
    if isinstance(x, dict) and isinstance(getattr(model, "input", None), dict):
        inputs = dict(model.input)
    if isinstance(x, dict) and not set(inputs) <= set(x):
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
    found = []
    for (key, tensor), array in zip(inputs.items(), given, strict=True):
        label = f"{name} data" if len(inputs) == 1 else f"{name} data for input '{key}'"
        check_shape(array, tuple(tensor.shape), label, model.name, batch)
        found.append((label, tensor, array))
    return found


def check_shape(
    array: NDArray[Any],
    expected: tuple[int | None, ...],
    label: str,
    model: str,
    batch: bool = False,
) -> None:
    """Refuse an array of another shape than an input.

    Args:
        array: one sample a row.
        expected: the shape of the input, `None` where any size will do.
        label: what the array is, for messages.
        model: the name of the model, for messages.
        batch: whether it comes from a dataset.

    Raises:
        DataError: with both shapes and what to do.
    """
    if _fits(array.shape[1:], expected[1:]) and array.ndim == len(expected):
        return
    wanted = ", ".join("any" if size is None else str(size) for size in expected[1:])
    if len(expected) > 1 and _fits(array.shape, expected[1:]):
        fix = BATCH_IT if batch else "a single sample becomes a batch of one with x[None]"
        if array.ndim == 1 and expected[-1] == 1 and not batch:
            fix = "add the channel axis with x[..., None]"
        what = "gives single samples of" if batch else "has"
        raise DataError(
            f"The {label} {what} shape {array.shape}, but model '{model}' takes (n, {wanted}): "
            f"{fix}."
        )
    fix = "reshape it, or give what the model was made for"
    if array.ndim == len(expected) - 1 and expected[-1] == 1:
        fix = "add the channel axis with x[..., None]"
    raise DataError(
        f"The {label} has shape {array.shape}, but model '{model}' takes (n, {wanted}): {fix}."
    )


def _fits(actual: tuple[int, ...], expected: tuple[int | None, ...]) -> bool:
    return len(actual) == len(expected) and all(
        want in (None, have) for want, have in zip(expected, actual, strict=True)
    )


def check_values(array: NDArray[Any], label: str) -> None:
    """Refuse an array that is empty, or holds something else than numbers.

    Args:
        array: one row for each sample.
        label: what it is, for messages.

    Raises:
        DataError: naming the array and, of NaN, the first row.
    """
    if array.dtype.kind == "V":
        raise DataError(
            f"The {label} is of type {array.dtype}, as NumPy stores bfloat16, whose numbers cannot "
            "be read back: store it as float32."
        )
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
    bad = np.concatenate([~_finite_rows(part) for part in _chunks(array)])
    if bad.any():
        raise DataError(
            f"The {label} holds NaN or infinite numbers in {int(bad.sum()):,} of {len(array):,} "
            f"samples, first in row {int(bad.argmax())}: remove or fill them."
        )


def _chunks(array: NDArray[Any]) -> list[NDArray[Any]]:
    """Views of some rows each, so that what is made of them stays small."""
    rows = max(1, _CHUNK // max(1, math.prod(array.shape[1:])))
    return [array[start : start + rows] for start in range(0, len(array), rows)]


def _finite_rows(array: NDArray[Any]) -> NDArray[np.bool_]:
    return np.asarray(np.isfinite(array).reshape(len(array), -1).all(axis=1))


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


def _is_weighted(data: Any) -> bool:
    return isinstance(data, tuple) and len(data) == 3


def _rows(data: Any, mask: NDArray[np.bool_]) -> Any:
    from keras import tree

    return tree.map_structure(lambda array: array[mask], data)
