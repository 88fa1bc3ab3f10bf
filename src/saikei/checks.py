"""Checks of arrays before a model sees them: their shapes, and whether they hold numbers or text.

Keras is imported where it is needed, so that wrong data is refused at once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from saikei.batches import is_text
from saikei.dataset_batches import BATCH_IT
from saikei.errors import DataError

if TYPE_CHECKING:
    import keras

# Numbers that are checked in one go.
_CHUNK = 1 << 20

Shape = tuple[int | None, ...]


def input_count(model: keras.Model) -> int:
    """How many inputs a model takes."""
    return len(getattr(model, "inputs", None) or [None])


def check_inputs(model: keras.Model, x: Any, name: str, batch: bool = False) -> None:
    """Refuse inputs of other shapes than a model takes, or that hold something else than numbers.

    Args:
        model: A built model; where its inputs are not known, only the values are checked.
        x: Arrays as it takes them; a dictionary may hold others besides.
        name: The name of the data, for messages.
        batch: Whether they come from a dataset.

    Raises:
        DataError: Naming the input, and its shape and the one that the model takes, or the first
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
    """Refuse an array for an input that takes text, where it holds something else."""
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
                f"{wrong[0] // max(1, array[0].size if array.ndim > 1 else 1)}, and the "
                "model takes text: fill it with a string."
            )


def _inputs_by_name(
    model: keras.Model, x: Any, name: str, batch: bool = False
) -> list[tuple[str, Any, NDArray[Any]]]:
    """For each input a name for messages, its tensor and the array, once their shapes fit."""
    inputs = {tensor.name: tensor for tensor in model.inputs}
    if isinstance(x, dict) and isinstance(getattr(model, "input", None), dict):
        inputs = dict(model.input)
    shapes = {key: tuple(tensor.shape) for key, tensor in inputs.items()}
    found = arrays_by_input(shapes, x, name, model.name, batch)
    return [(label, inputs[key], array) for key, label, array in found]


def arrays_by_input(
    shapes: Mapping[str, Shape], x: Any, name: str, model: str, batch: bool = False
) -> list[tuple[str, str, NDArray[Any]]]:
    """Match arrays to the inputs of a model, and check their shapes.

    Args:
        shapes: The shape of each input, batch axis first, in the order of the model's inputs.
        x: Arrays nested in any way, in that order; or a dictionary by name, which may hold others
            besides.
        name: The name of the data, for messages.
        model: The name of the model, for messages.
        batch: Whether the arrays come from a dataset.

    Returns:
        For each input its name, what its array is called in messages, and the array.

    Raises:
        DataError: When an input is missing, or an array has another shape than its input.
    """
    from keras import tree

    if isinstance(x, dict) and not set(shapes) <= set(x):
        raise DataError(
            f"The {name} data has inputs {sorted(x)}, but model '{model}' takes "
            f"{sorted(shapes)}: name them alike."
        )
    given = [x[key] for key in shapes] if isinstance(x, dict) else tree.flatten(x)
    if len(given) != len(shapes):
        raise DataError(
            f"The {name} data has {len(given)} inputs, but model '{model}' takes "
            f"{len(shapes)}: give one array for each."
        )
    found = []
    for (key, shape), array in zip(shapes.items(), given, strict=True):
        label = f"{name} data" if len(shapes) == 1 else f"{name} data for input '{key}'"
        check_shape(array, shape, label, model, batch)
        found.append((key, label, array))
    return found


def check_shape(
    array: NDArray[Any],
    expected: Shape,
    label: str,
    model: str,
    batch: bool = False,
) -> None:
    """Refuse an array of another shape than an input.

    Args:
        array: One sample a row.
        expected: The shape of the input, `None` where any size will do.
        label: What the array is, for messages.
        model: The name of the model, for messages.
        batch: Whether it comes from a dataset.
    """
    if _fits(array.shape[1:], expected[1:]) and array.ndim == len(expected):
        return
    takes = ", ".join("any" if size is None else str(size) for size in expected[1:])
    if len(expected) > 1 and _fits(array.shape, expected[1:]):
        fix = BATCH_IT if batch else "a single sample becomes a batch of one with x[None]"
        if array.ndim == 1 and expected[-1] == 1 and not batch:
            fix = "add the channel axis with x[..., None]"
        what = "gives single samples of" if batch else "has"
        raise DataError(
            f"The {label} {what} shape {array.shape}, but model '{model}' takes (n, {takes}): "
            f"{fix}."
        )
    fix = "reshape it, or give what the model was made for"
    if array.ndim == len(expected) - 1 and expected[-1] == 1:
        fix = "add the channel axis with x[..., None]"
    raise DataError(
        f"The {label} has shape {array.shape}, but model '{model}' takes (n, {takes}): {fix}."
    )


def _fits(actual: tuple[int, ...], expected: Shape) -> bool:
    return len(actual) == len(expected) and all(
        size in (None, have) for size, have in zip(expected, actual, strict=True)
    )


_NUMBERED = ", with classes numbered from 0"


def check_values(array: NDArray[Any], label: str) -> None:
    """Refuse an array that is empty, or holds something else than numbers."""
    if array.dtype.kind == "V":
        raise DataError(
            f"The {label} is of type {array.dtype}, as NumPy stores bfloat16, whose numbers cannot "
            "be read back: store it as float32."
        )
    if array.dtype.kind not in "biuf":
        raise DataError(
            f"The {label} is of type {array.dtype}: give numbers{_NUMBERED * ('labels' in label)}."
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
