"""Made-up inputs that a model can run on: numbers, indices that it looks up, and words."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import keras
import numpy as np
from keras import tree

from saikei.errors import ModelError
from saikei.graph import internals
from saikei.graph.flat import Graph, TensorRef
from saikei.tensors import numpy_dtype

Array = np.ndarray[Any, np.dtype[Any]]

# How many words a made-up text has.
_LENGTH = 6


def random_inputs(
    graph: Graph,
    rows: int,
    generator: np.random.Generator,
    unknown: int = 8,
    sizes: Mapping[str, tuple[int, ...]] = MappingProxyType({}),
    below: int | None = None,
) -> Any:
    """Inputs of the types and shapes that a model takes.

    Floating-point numbers are normal after the `Rescaling` that the model begins with, if it does:
    of images from 0 to 255, noise around 0 would leave little but the offset.

    Args:
        graph: Graph of the model.
        rows: Number of samples; an input of fixed batch size gets that many.
        generator: Source of the random numbers.
        unknown: Size of axes whose size is unknown.
        sizes: Shape of a sample, without the batch axis, by the name of the input; it comes before
            `unknown`.
        below: Whole numbers are drawn from 0 up to this; by default up to the smallest number of
            entries that an embedding or encoding of the model has.

    Returns:
        Arrays, nested as the model takes them: normal numbers, whole numbers, and texts of words
        that the model knows and one that it does not.

    Raises:
        ModelError: When the model takes text on a backend that has none.
    """

    def one(ref: TensorRef) -> Array:
        spec = graph.spec(ref)
        batch = rows if spec.shape[0] is None else spec.shape[0]
        given = sizes.get(graph.calls[ref.call].operation, spec.shape[1:])
        shape = (batch, *(unknown if size is None else size for size in given))
        values = _random_values(graph, spec.dtype, shape, generator, below)
        if values.dtype.kind in "OSUbiu":
            return values
        scale, offset = _rescaling(graph, ref)
        return ((values - offset) / scale).astype(numpy_dtype(spec.dtype))

    return tree.map_structure(one, graph.inputs)


def _rescaling(graph: Graph, ref: TensorRef) -> tuple[float, float]:
    """Scale and offset that the model gives an input before anything else; 1 and 0 for none."""
    for call in graph.calls:
        operation = graph.operations[call.operation]
        if operation.kind == "Rescaling" and call.inputs() == [ref]:
            settings = operation.config or {}
            scale, offset = settings["scale"], settings["offset"]
            if np.ndim(scale) == np.ndim(offset) == 0 and scale:
                return float(scale), float(offset)
    return 1.0, 0.0


def _random_values(
    graph: Graph,
    dtype: str,
    shape: tuple[int, ...],
    generator: np.random.Generator,
    below: int | None,
) -> Array:
    """Values for one input: numbers, indices that its layers have, or words."""
    if dtype == "string" and keras.config.backend() != "tensorflow":
        raise ModelError(
            f"Model '{graph.name}' reads text, which Keras does on TensorFlow only, so it cannot "
            f"run on {keras.config.backend()}: set KERAS_BACKEND=tensorflow. What is counted, "
            "such as profile(model, latency=False), runs nothing."
        )
    parts = [
        part
        for operation in graph.operations.values()
        for part in internals.flattened_layers(operation.source)
    ]
    if dtype == "string":
        words = _words(parts)
        draw = [
            " ".join(generator.choice(words, _LENGTH if _splits(parts) else 1))
            for _ in range(int(np.prod(np.array(shape, dtype=np.int64))))
        ]
        return np.array(draw, dtype=object).reshape(shape)
    if dtype == "bool":
        return generator.random(shape) < 0.5
    if keras.backend.is_int_dtype(dtype):
        return generator.integers(0, below or _bound(parts, dtype), shape).astype(dtype)
    return generator.standard_normal(shape)


def _bound(parts: list[Any], dtype: str) -> int:
    """The smallest number of entries of the layers that look up or encode whole numbers."""
    sizes = [
        getattr(part, "input_dim", None) or getattr(part, "num_tokens", None)
        for part in parts
        if isinstance(part, (keras.layers.Embedding, keras.layers.CategoryEncoding))
    ]
    known = [int(size) for size in sizes if size]
    # Without such layers two are safe: whatever looks numbers up has two entries at least.
    return min(known, default=256 if dtype == "uint8" else 2)


def _splits(parts: list[Any]) -> bool:
    return any(isinstance(part, keras.layers.TextVectorization) for part in parts)


def _words(parts: list[Any]) -> list[str]:
    words = ["somethingelse"]
    for part in parts:
        if isinstance(part, keras.layers.StringLookup) and not part.invert:
            known = part.get_vocabulary(include_special_tokens=False)
            words += [str(word) for word in known[:100] if str(word).strip()]
    return words
