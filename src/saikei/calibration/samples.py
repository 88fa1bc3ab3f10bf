"""A small, reproducible choice of samples out of whatever `keras.Model.fit` takes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import keras
import numpy as np
from keras import tree
from numpy.typing import NDArray

from saikei.data import arrays
from saikei.errors import DataError
from saikei.graph import Graph

# Enough for the widest layers of small networks; more changed accuracy by less than its noise.
SAMPLES = 512


@dataclass(frozen=True)
class Samples:
    """Chosen samples.

    Args:
        inputs: nested as the graph nests its inputs, one sample a row.
        labels: nested as they came.
    """

    inputs: Any
    labels: Any

    def __len__(self) -> int:
        return len(tree.flatten(self.inputs)[0])


def calibration_samples(graph: Graph, data: Any, samples: int = SAMPLES) -> Samples:
    """Choose samples, the same ones at every call.

    Of arrays, a random choice; of a `keras.utils.PyDataset`, batches spread evenly over it; of
    any other dataset, which can only be read from its beginning, the first ones.

    Args:
        graph: of the model that the inputs are for.
        data: what `keras.Model.fit` takes, with labels; sample weights are left aside.
        samples: how many to choose; all where there are fewer.

    Raises:
        DataError: when the data does not fit the graph's inputs, is empty, or holds NaN.
    """
    chosen_from = _pair(data) if isinstance(data, tuple) else _some(data, samples)
    x, y = arrays(chosen_from, "calibration")
    inputs = _fitted(graph, x)
    leaves = tree.flatten((inputs, y))
    lengths = {len(leaf) for leaf in leaves}
    if len(lengths) != 1:
        raise DataError(
            f"The calibration data has arrays of {sorted(lengths)} samples: x and y need one row "
            "a sample."
        )
    count = lengths.pop()
    if count == 0:
        raise DataError("The calibration data is empty: give at least one sample.")
    rows = np.arange(count)
    if count > samples:
        rows = np.sort(np.random.default_rng(0).choice(count, samples, replace=False))
    chosen = Samples(*tree.map_structure(lambda leaf: leaf[rows], (inputs, y)))
    _check_numbers(chosen.inputs)
    return chosen


def calibration_inputs(graph: Graph, data: Any, samples: int = SAMPLES) -> Any:
    """The inputs alone; see `calibration_samples`."""
    return calibration_samples(graph, data, samples).inputs


def calibration_labels(graph: Graph, data: Any, samples: int = SAMPLES) -> Any:
    """The labels alone, of the same samples; see `calibration_samples`."""
    return calibration_samples(graph, data, samples).labels


def _pair(batch: Any) -> Any:
    """Inputs and labels, where sample weights come with them."""
    return batch[:2] if isinstance(batch, tuple) and len(batch) == 3 else batch


def _some(data: Any, samples: int) -> Any:
    """As many batches as it takes, so that a large or endless dataset is not read whole."""
    if isinstance(data, keras.utils.PyDataset) and data.num_batches:
        count = int(data.num_batches)
        size = max(1, len(tree.flatten(data[0])[0]))
        wanted = min(count, -(-samples // size))
        spread = np.unique(np.linspace(0, count - 1, wanted).round().astype(int))
        return (_pair(data[int(index)]) for index in spread)
    if isinstance(data, Iterable) and not isinstance(data, (np.ndarray, dict, str, bytes, list)):
        return _until(data, samples)
    return data


def _until(batches: Iterable[Any], samples: int) -> Iterator[Any]:
    seen = 0
    for batch in islice(batches, samples):
        yield _pair(batch)
        seen += len(tree.flatten(batch)[0])
        if seen >= samples:
            return


def _fitted(graph: Graph, x: Any) -> Any:
    """The arrays in the structure of the graph's inputs, once their shapes fit."""
    names = [graph.calls[ref.call].operation for ref in graph.input_refs()]
    structure = graph.inputs
    if isinstance(x, dict):
        keys = list(structure) if isinstance(structure, dict) else names
        missing = [key for key in keys if key not in x]
        if missing:
            raise DataError(
                f"The calibration data has no input '{missing[0]}': model '{graph.name}' takes "
                f"{', '.join(map(str, keys))}."
            )
        # Keras flattens dictionaries by sorted keys.
        flat = tree.flatten({key: x[key] for key in keys} if isinstance(structure, dict) else 0)
        flat = flat if isinstance(structure, dict) else [x[key] for key in keys]
    else:
        flat = tree.flatten(x)
    if len(flat) != len(names):
        raise DataError(
            f"The calibration data has {len(flat)} inputs, but model '{graph.name}' takes "
            f"{len(names)}: give one array for each."
        )
    for name, array, ref in zip(names, flat, graph.input_refs(), strict=True):
        _check_shape(array, graph.spec(ref).shape, name)
    return tree.pack_sequence_as(structure, flat)


def _check_shape(array: NDArray[Any], shape: tuple[int | None, ...], name: str) -> None:
    fits = array.ndim == len(shape) and all(
        want in (None, have) for want, have in zip(shape[1:], array.shape[1:], strict=True)
    )
    if not fits:
        wanted = ", ".join("any" if size is None else str(size) for size in shape[1:])
        raise DataError(
            f"The calibration data for input '{name}' has shape {array.shape}, but the model takes "
            f"(n, {wanted}): reshape it."
        )


def _check_numbers(inputs: Any) -> None:
    for array in tree.flatten(inputs):
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise DataError(
                "The calibration data holds NaN or infinite numbers: remove or fill them."
            )
