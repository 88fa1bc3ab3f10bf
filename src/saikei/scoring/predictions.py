"""What a model predicts of data, batch by batch, beside the labels."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import tree

from saikei.batches import Array, ArrayData, as_arrays, as_numpy, own_arrays
from saikei.checks import check_inputs, input_count
from saikei.dataset_batches import dataset_batches, to_arrays
from saikei.errors import DataError
from saikei.scoring.masks import Masked, with_masks

# Bytes of outputs that are held at once where they are scored batch by batch.
_AT_ONCE = 64 << 20
# Rows of a model whose outputs are of unknown size.
_FIRST = 4


@dataclass(frozen=True, eq=False)
class Predictions:
    """What a model predicts of some rows, beside the labels and weights in the data.

    Args:
        y: Labels, in the structure of the data.
        weights: Sample weights, in the structure of the data; `None` without any.
        outputs: One array `(n, …)` for each output, flattened.
        masks: For each output booleans of its rows or positions; `None` where it has no mask.
    """

    y: Any
    weights: Any
    outputs: list[Array]
    masks: list[Array | None]


def predict(model: keras.Model, data: Any, batch_size: int = 256) -> tuple[Any, list[Array]]:
    """Labels and outputs of every sample, from one pass over the data.

    Args:
        model: A built model.
        data: `(x, y)` or `(x, y, sample_weight)` arrays or a dataset, as for `predict_all`.
        batch_size: Samples a step, for arrays.

    Returns:
        The labels in the structure of the data, and one array `(n, …)` for each output, flattened.

    Raises:
        DataError: As `predict_all` does.
    """
    predicted = predict_all(model, data, batch_size)
    return predicted.y, predicted.outputs


def predict_all(
    model: keras.Model, data: Any, batch_size: int = 256, labels_of: keras.Model | None = None
) -> Predictions:
    """The outputs for every sample, beside labels, weights and masks, from one pass over the data.

    Args:
        model: A built model.
        data: `(x, y)` or `(x, y, sample_weight)` arrays or a dataset. A dataset may come
            shuffled: labels and outputs are gathered in the same pass.
        batch_size: Samples a step, for arrays.
        labels_of: The model whose outputs the labels are for, where `model` gives the outputs of
            several models at once; `None` for `model` itself.

    Raises:
        DataError: When the data is empty, endless or without labels, or has other shapes than
            the model takes.
    """
    arrays = as_arrays(data, "given", inputs=input_count(model))
    if arrays is not None:
        arrays = _read_by(model, arrays, labels_of)
        return _of_arrays(with_masks(model, arrays.x), arrays, batch_size)
    return _joined(list(_of_dataset(model, data, labels_of)))


def predict_batches(model: keras.Model, data: Any, batch_size: int = 256) -> Iterator[Predictions]:
    """Predict in parts of one or several batches, so that not all outputs are held at once.

    Args:
        model: A built model.
        data: `(x, y)` or `(x, y, sample_weight)` arrays or a dataset, as for `predict_all`.
        batch_size: Samples a step, for arrays.

    Raises:
        DataError: As `predict_all` does.
    """
    arrays = as_arrays(data, "given", inputs=input_count(model))
    if arrays is None:
        yield from _of_dataset(model, data, None)
        return
    arrays = _read_by(model, arrays, None)
    masked, start = with_masks(model, arrays.x), 0
    rows = rows_at_once(_bytes_of_a_row(model), batch_size)
    while start < len(arrays):
        predicted = _of_arrays(masked, arrays.take(slice(start, start + rows)), batch_size)
        yield predicted
        start += rows
        rows = rows_at_once(sum(one[0].nbytes for one in predicted.outputs), batch_size)


def bytes_of_outputs(model: keras.Model, x: Any) -> int:
    """The bytes of all outputs of one row.

    Args:
        model: A built model.
        x: Arrays as it takes them; where an axis is of unknown size, the first row is tried.
    """
    known = _bytes_of_a_row(model)
    if known is not None:
        return known
    first = tree.map_structure(lambda leaf: leaf[:1], x)
    return int(sum(as_numpy(one).nbytes for one in tree.flatten(model(first, training=False))))


def _bytes_of_a_row(model: keras.Model) -> int | None:
    """The bytes of all outputs of one row; `None` where an axis is of unknown size."""
    shapes = [tuple(tensor.shape[1:]) for tensor in getattr(model, "outputs", None) or ()]
    if not shapes or any(size is None for shape in shapes for size in shape):
        return None
    return int(sum(4 * math.prod(shape) for shape in shapes))


def rows_at_once(each: int | None, batch_size: int) -> int:
    """How many rows to predict at once, so that their outputs stay within 64 MiB.

    Args:
        each: Bytes of the outputs of a row; `None` where they are unknown.
        batch_size: Rows a step of the model; the result is a multiple of it, or less than it.
    """
    if each is None:
        return min(batch_size, _FIRST)
    most = max(1, _AT_ONCE // max(1, each))
    return max(1, most // batch_size) * batch_size if most >= batch_size else most


def _read_by(
    model: keras.Model, arrays: ArrayData, labels_of: keras.Model | None, batch: bool = False
) -> ArrayData:
    """Data that fits a model, with the inputs that it reads."""
    check_inputs(model, arrays.x, "given", batch=batch)
    return own_arrays(model, arrays, labels_of)


def _of_arrays(masked: Masked, arrays: ArrayData, batch_size: int) -> Predictions:
    outputs, masks = masked.predict(arrays.x, batch_size)
    return Predictions(arrays.y, arrays.weights, outputs, masks)


def _of_dataset(
    model: keras.Model, data: Any, labels_of: keras.Model | None
) -> Iterator[Predictions]:
    masked: Masked | None = None
    for given in dataset_batches(data, "given", inputs=input_count(model)):
        batch = _read_by(model, to_arrays(given, "given"), labels_of, batch=True)
        masked = masked or with_masks(model, batch.x)
        outputs, masks = masked.predict_on_batch(batch.x)
        yield Predictions(batch.y, batch.weights, outputs, masks)
    if masked is None:
        raise DataError("The given data is empty: give at least one batch.")


def _joined(parts: Sequence[Predictions]) -> Predictions:
    weighted = parts[0].weights is not None
    if any((part.weights is not None) != weighted for part in parts):
        raise DataError("Some batches of the given data hold sample weights and others do not.")
    return Predictions(
        y=_concatenated([part.y for part in parts]),
        weights=_concatenated([part.weights for part in parts]) if weighted else None,
        outputs=[np.concatenate(one) for one in zip(*(p.outputs for p in parts), strict=True)],
        masks=[
            None if one[0] is None else np.concatenate(one)
            for one in zip(*(p.masks for p in parts), strict=True)
        ],
    )


def _concatenated(parts: list[Any]) -> Any:
    return tree.map_structure(lambda *each: np.concatenate(each), *parts)
