"""Reading what users hand in as arrays: inputs, labels and weights, in the forms of Keras's `fit`.

Keras is imported where it is needed, so that wrong data is refused at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saikei.errors import DataError, in_one_line
from saikei.tensors import to_known

Array = NDArray[Any]


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
    check_weights(parts.weights, f"the {name} data")
    return parts


def check_weights(weights: Any, where: str) -> None:
    """Refuse sample weights that are negative, infinite or NaN.

    Args:
        weights: Sample weights in any nesting; `None` where there are none.
        where: What they belong to, for messages.
    """
    from keras import tree

    for leaf in tree.flatten(weights):
        if leaf is None or leaf.dtype.kind not in "iuf":
            continue
        if not (np.isfinite(leaf).all() and (leaf >= 0).all()):
            raise DataError(
                f"The sample weights of {where} hold negative, infinite or NaN numbers: give "
                "finite weights of at least 0."
            )


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
        _check_columns(leaf, array)
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


def _check_columns(table: Any, array: Array) -> None:
    """Refuse a table in which columns of texts are beside columns of numbers."""
    names = list(getattr(table, "columns", ()))
    if array.ndim != 2 or len(names) != array.shape[1]:
        return
    if array.dtype.kind != "O":
        return
    texts = [n for n, column in zip(names, array.T, strict=True) if isinstance(column[0], str)]
    if 0 < len(texts) < len(names):
        raise DataError(
            f"Column '{texts[0]}' of a table holds texts, and other columns hold numbers: encode "
            "it as numbers, or leave it out."
        )


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


def own_inputs(model: Any, x: Any) -> Any:
    """The inputs that a model reads of a dictionary of arrays, nested as it takes them.

    Args:
        model: A built model.
        x: A dictionary, which may hold others too; anything else is returned as it is.
    """
    inputs = getattr(model, "inputs", None)
    taken = getattr(model, "input", None)
    if not isinstance(x, dict) or not inputs or taken is None:
        return x
    if isinstance(taken, dict):
        return {name: x[name] for name in taken} if set(taken) < set(x) else x
    if not all(tensor.name in x for tensor in inputs):
        return x
    arrays = [x[tensor.name] for tensor in inputs]
    return arrays if isinstance(taken, (list, tuple)) else arrays[0]


def own_labels(model: Any, y: Any, what: str = "Labels") -> Any:
    """Labels, or weights of rows, nested as a model nests its outputs.

    Args:
        model: A built model.
        y: A dictionary by the names of the outputs, which `keras.Model.fit` takes for a list of
            outputs too; anything else is returned as it is.
        what: What they are, for messages.

    Raises:
        DataError: When the names are others.
    """
    if not isinstance(y, dict):
        return y
    names, given = getattr(model, "output_names", None), getattr(model, "output", None)
    if isinstance(given, dict) or not names:
        return y
    if set(y) != set(names):
        raise DataError(
            f"{what} are named {sorted(y)}, but the outputs of model '{model.name}' are named "
            f"{sorted(names)}: use the outputs' names."
        )
    arrays = [y[name] for name in names]
    return arrays if isinstance(given, (list, tuple)) else arrays[0]


def own_arrays(model: Any, arrays: ArrayData, labels_of: Any = None) -> ArrayData:
    """Data as a model takes it, where its parts are dictionaries by the names of its tensors.

    Args:
        model: A built model.
        arrays: Inputs, which may be more than the model reads, labels and weights.
        labels_of: The model that the labels are for; `None` if it is the one that reads the inputs.

    Raises:
        DataError: When labels or weights are named as no outputs are.
    """
    judged = model if labels_of is None else labels_of
    return ArrayData(
        own_inputs(model, arrays.x),
        own_labels(judged, arrays.y),
        own_labels(judged, arrays.weights, "Sample weights"),
    )


def predict_arrays(model: Any, x: Any, batch_size: int) -> Any:
    """The outputs of a model for arrays, as `keras.Model.predict` gives them.

    For each call, `predict` sets up a pipeline and callbacks, which takes a small model longer
    than its predictions do.

    Args:
        model: A built model.
        x: Arrays with one sample a row, nested as the model takes them; a dictionary may hold
            others too.
        batch_size: Most samples a step.

    Returns:
        Arrays with one sample a row, nested as the model gives them.
    """
    import keras
    from keras import tree

    x = for_keras(own_inputs(model, x))
    if type(model).predict is not keras.Model.predict:
        # A cascade predicts in an order of rows of its own.
        return model.predict(x, batch_size=batch_size, verbose=0)
    count = len(tree.flatten(x)[0])
    # All steps have one size, since a model is compiled again for another: the last one begins
    # among the rows of the one before.
    size = -(-count // max(1, -(-count // batch_size)))
    parts = []
    for start in range(0, count, max(1, size)):
        known = max(0, start + size - count)
        rows = slice(start - known, start + size)
        part = tree.map_structure(lambda leaf, rows=rows: leaf[rows], x)
        found = model.predict_on_batch(part)
        parts.append(tree.map_structure(lambda leaf, known=known: leaf[known:], found))
    return parts[0] if len(parts) == 1 else tree.map_structure(_concatenated, *parts)


def _concatenated(*parts: Array) -> Array:
    return np.concatenate(parts)


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
