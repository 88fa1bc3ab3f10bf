"""A small, reproducible choice of samples out of whatever `keras.Model.fit` takes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import tree
from numpy.typing import NDArray

from saikei.batches import ArrayData, as_arrays, parts_of
from saikei.checks import arrays_by_input, check_text, check_values
from saikei.dataset_batches import batch_count, dataset_batches, join_batches, to_arrays
from saikei.errors import DataError
from saikei.for_each_output import flat_weights
from saikei.graph import Graph, open_inputs

# Enough for the widest layers of small networks; more changed accuracy by less than its noise.
SAMPLES = 512
_NAME = "calibration"


@dataclass(frozen=True)
class Samples:
    """Chosen samples.

    Args:
        inputs: Nested as the graph nests its inputs, one sample a row.
        labels: Nested as they came; `None` where the data has none.
        weights: Sample weights, nested as they came; `None` where the data has none.
    """

    inputs: Any
    labels: Any
    weights: Any = None

    def __len__(self) -> int:
        return len(tree.flatten(self.inputs)[0])

    def take(self, rows: NDArray[np.int64]) -> Samples:
        """Some of the samples.

        Args:
            rows: Their positions.
        """
        return Samples(*_rows((self.inputs, self.labels, self.weights), rows))

    def truths(self) -> list[NDArray[Any]]:
        """What a loss compares outputs with: the flat labels, and behind them a weight for each.

        There are weights only where the data has some.

        Raises:
            DataError: When there are no labels, or weights for another number of outputs.
        """
        labels = [np.asarray(leaf) for leaf in tree.flatten(self.with_labels()[1])]
        weights = flat_weights(self.weights, len(labels))
        if all(one is None for one in weights):
            return labels
        ones = np.ones(len(self), np.float32)
        return [*labels, *(ones if one is None else one for one in weights)]

    def with_labels(self) -> tuple[Any, Any]:
        """Inputs and labels.

        Raises:
            DataError: When there are no labels.
        """
        if self.labels is None:
            raise DataError(
                "The loss, and gradients of it, need labels, and the calibration data holds inputs "
                "alone: give (x, y), or a criterion that needs none, such as 'reconstruction' or "
                "'magnitude' for channels and 'output' or 'influence' for layers."
            )
        return self.inputs, self.labels


def calibration_samples(graph: Graph, data: Any, samples: int = SAMPLES) -> Samples:
    """Choose samples, the same ones at every call.

    Of arrays, a random choice; of a `keras.utils.PyDataset`, batches spread evenly over it; of
    any other dataset, which can only be read from its beginning, the first ones. Where the model
    takes inputs of any size and the batches differ in it, those of the commonest size.

    Args:
        graph: The graph of the model that the inputs are for.
        data: What `keras.Model.fit` takes, or inputs alone. Sample weights count where a loss is
            computed, and do not change which samples are chosen.
        samples: How many to choose; all where there are fewer.

    Raises:
        DataError: When the data does not fit the graph's inputs, is empty, or holds NaN.
    """
    count = len(graph.input_refs())
    whole = as_arrays(data, _NAME, labels=False, inputs=count, as_is=True)
    if whole is None:
        whole = _joined(graph, _some(data, samples, count), hasattr(data, "__next__"))
    inputs, y = _fitted(graph, whole.x), whole.y
    count = len(whole)
    rows = np.arange(count)
    if count > samples:
        rows = np.sort(np.random.default_rng(0).choice(count, samples, replace=False))
    chosen = Samples(*_rows((inputs, y, whole.weights), rows))
    for ref, array in zip(graph.input_refs(), tree.flatten(chosen.inputs), strict=True):
        check = check_text if graph.spec(ref).dtype == "string" else check_values
        check(array, f"{_NAME} data")
    return chosen


def _rows(parts: Any, rows: Any) -> Any:
    return tree.map_structure(lambda leaf: None if leaf is None else leaf[rows], parts)


def calibration_inputs(graph: Graph, data: Any, samples: int = SAMPLES) -> Any:
    """The inputs alone; see `calibration_samples`."""
    return calibration_samples(graph, data, samples).inputs


def _some(data: Any, samples: int, inputs: int) -> Iterator[ArrayData]:
    """Read only as many batches as needed, since a dataset may be large or endless."""
    count = batch_count(data) if isinstance(data, keras.utils.PyDataset) else None
    if count:
        size = len(to_arrays(ArrayData(*parts_of(data[0], _NAME, inputs)), _NAME))
        wanted = min(count, -(-samples // size))
        spread = np.unique(np.linspace(0, count - 1, wanted).round().astype(int))
        for index in spread:
            yield to_arrays(ArrayData(*parts_of(data[int(index)], _NAME, inputs)), _NAME)
        return
    seen = 0
    for batch in dataset_batches(data, _NAME, labels=False, inputs=inputs, some=True):
        yield (arrays := to_arrays(batch, _NAME))
        seen += len(arrays)
        if seen >= samples:
            return


def _joined(graph: Graph, batches: Iterator[ArrayData], once: bool) -> ArrayData:
    parts: list[ArrayData] = []
    for batch in batches:
        if not parts:
            _fitted(graph, batch.x, batch=True)
        parts.append(batch)
    if not parts:
        raise DataError(
            f"The {_NAME} data is "
            + (
                "a generator that has ended: give arrays or a dataset, which can be read again."
                if once
                else "empty: give at least one batch."
            )
        )
    return join_batches(_of_one_size(parts) if open_inputs(graph) else parts, _NAME)


def _of_one_size(batches: Sequence[ArrayData]) -> list[ArrayData]:
    """The batches of the commonest length, where each is padded to a length of its own."""
    groups: dict[Any, list[ArrayData]] = {}
    for batch in batches:
        leaves = [leaf for leaf in tree.flatten((batch.x, batch.y)) if leaf is not None]
        groups.setdefault(tuple(leaf.shape[1:] for leaf in leaves), []).append(batch)
    return max(groups.values(), key=lambda group: sum(map(len, group)))


def _fitted(graph: Graph, x: Any, batch: bool = False) -> Any:
    """The arrays in the structure of the graph's inputs, once their shapes fit."""
    structure, refs = graph.inputs, graph.input_refs()
    # Keras flattens dictionaries by sorted keys.
    by_key = isinstance(structure, dict) and isinstance(x, dict)
    names = sorted(structure) if by_key else [graph.calls[ref.call].operation for ref in refs]
    shapes = {n: tuple(graph.spec(ref).shape) for n, ref in zip(names, refs, strict=True)}
    found = arrays_by_input(shapes, x, _NAME, graph.name, batch)
    return tree.pack_sequence_as(structure, [array for _, _, array in found])
