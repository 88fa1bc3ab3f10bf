"""Axes of unknown size get, for counting, the size that they have in the data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import keras
import numpy as np
from keras import tree

from saikei.calibration.samples import calibration_inputs
from saikei.graph import Graph, TensorRef, sized, tensor_values

# Enough to find the longest text of a usual batch.
_BATCH = 32


def sizes_of(graph: Graph, data: Any, model: keras.Model) -> dict[str, tuple[int, ...]]:
    """The shape of a sample of the data for each input, and for layers whose output depends on it.

    Args:
        graph: The graph of the model that the data is for.
        data: What `keras.Model.fit` takes; of a dataset, the first batch is looked at.
        model: The model; it is run on a batch where a size follows from what is in the data.

    Raises:
        DataError: When the data does not fit the graph's inputs.
    """
    arrays = tree.flatten(calibration_inputs(graph, data, samples=1))
    names = [graph.calls[ref.call].operation for ref in graph.input_refs()]
    shapes = [tuple(np.shape(array)[1:]) for array in arrays]
    sizes: dict[str, tuple[int, ...]] = dict(zip(names, shapes, strict=True))
    full = sized(replace(graph, sizes=sizes)).sizes
    hidden = [name for name, shape in full.items() if None in shape and name not in sizes]
    if hidden:
        sizes |= _sizes_inside(graph, data, model, hidden)
    return sizes


def _sizes_inside(
    graph: Graph, data: Any, model: keras.Model, layers: Sequence[str]
) -> dict[str, tuple[int, ...]]:
    calls = [call.operation for call in graph.calls]
    refs = [TensorRef(calls.index(name), 0) for name in layers]
    inputs = calibration_inputs(graph, data, samples=_BATCH)
    values = tensor_values(graph, model, inputs, refs, training=False)
    return {name: tuple(v.shape)[1:] for name, v in zip(layers, values, strict=True)}
