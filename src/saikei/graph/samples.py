"""Made-up inputs that a model can run on: numbers, indices that it looks up, and words."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import tree

from saikei.errors import ModelError
from saikei.graph import internals
from saikei.graph.flat import Graph
from saikei.tensors import numpy_dtype

Array = np.ndarray[Any, np.dtype[Any]]

# How many words a made-up text has.
_LENGTH = 6


def random_inputs(graph: Graph, rows: int, unknown: int, seed: int = 0) -> Any:
    """Inputs of the types and shapes that a model takes.

    Args:
        graph: of the model.
        rows: samples; an input of fixed batch size gets that.
        unknown: the size of axes that have none.
        seed: of the values.

    Returns:
        Arrays, nested as the model takes them: normal numbers, whole numbers that every embedding
        has a row for, and texts of the words that the model knows and of one that it does not.
    """
    generator = np.random.default_rng(seed)

    def one(ref: Any) -> Array:
        spec = graph.spec(ref)
        batch = rows if spec.shape[0] is None else spec.shape[0]
        shape = (batch, *(unknown if size is None else size for size in spec.shape[1:]))
        return random_values(graph, spec.dtype, shape, generator)

    return tree.map_structure(one, graph.inputs)


def random_values(
    graph: Graph, dtype: str, shape: tuple[int, ...], generator: np.random.Generator
) -> Array:
    """Values for one input: numbers, indices that its layers have, or words.

    Args:
        graph: of the model.
        dtype: of the input.
        shape: with the batch.
        generator: of the values.

    Raises:
        ModelError: when the model takes text on a backend that has none.
    """
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
        return generator.integers(0, _bound(parts, dtype), shape).astype(dtype)
    return generator.normal(size=shape).astype(numpy_dtype(dtype))


def _bound(parts: list[Any], dtype: str) -> int:
    """Below which every whole number is looked up, counted or one-hot encoded by all layers."""
    sizes = [
        getattr(part, "input_dim", None) or getattr(part, "num_tokens", None)
        for part in parts
        if isinstance(part, (keras.layers.Embedding, keras.layers.CategoryEncoding))
    ]
    known = [int(size) for size in sizes if size]
    # Without such layers, what looks numbers up has at least two of them.
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
