"""Sizes that a user gives for axes of unknown size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np
from keras import tree

from saikei.errors import ModelError
from saikei.graph.concrete import open_inputs
from saikei.graph.flat import Graph, Shape

# The shape of a sample, or one for each input: by name, or in the order of the inputs.
InputShape: TypeAlias = Sequence[int] | Sequence[Sequence[int]] | Mapping[str, Sequence[int]]


def with_input_shape(graph: Graph, input_shape: InputShape) -> Graph:
    """The graph with the sizes by which its costs are counted.

    Args:
        graph: Graph of the model.
        input_shape: The shape of a sample without the batch axis, as `(224, 224, 3)`; of several
            inputs a mapping from their names, or one shape for each in their order. A mapping may
            leave out inputs whose size is known, and may name layers whose output's size depends
            on the data.

    Raises:
        ModelError: With the name of the input that does not fit the model.
    """
    given = _by_name(graph, input_shape)
    shapes = _open_shapes(graph)
    for name, shape in given.items():
        if name not in shapes:
            raise ModelError(
                f"input_shape names '{name}', but model '{graph.name}' has no such input: name "
                f"{', '.join(_names(graph))}."
            )
        _check(name, shape, shapes[name])
    left = [name for name in open_inputs(graph) if name not in given]
    if left:
        raise ModelError(
            f"input_shape leaves out input '{left[0]}' of model '{graph.name}', which has an axis "
            f"of unknown size {shapes[left[0]]}: give a shape for it too."
        )
    return replace(graph, sizes=given)


def _by_name(graph: Graph, input_shape: Any) -> dict[str, tuple[int, ...]]:
    names = _names(graph)
    if isinstance(input_shape, Mapping):
        keys = _keys(graph)
        return {
            keys.get(name, str(name)): _shape(str(name), shape)
            for name, shape in input_shape.items()
        }
    nested = isinstance(input_shape, (list, tuple)) and any(
        isinstance(shape, (list, tuple)) for shape in input_shape
    )
    shapes = list(input_shape) if nested else [input_shape]
    if len(shapes) != len(names):
        raise ModelError(
            f"input_shape holds {len(shapes)} {'shape' if len(shapes) == 1 else 'shapes'}, but "
            f"model '{graph.name}' has the inputs {', '.join(names)}: give one for each, by name."
        )
    return {name: _shape(name, shape) for name, shape in zip(names, shapes, strict=True)}


def _names(graph: Graph) -> list[str]:
    return [graph.calls[ref.call].operation for ref in graph.input_refs()]


def _keys(graph: Graph) -> dict[str, str]:
    """The layer of each input by its key, where the model takes a dictionary."""
    if not isinstance(graph.inputs, dict):
        return {}
    refs = {key: tree.flatten(value) for key, value in graph.inputs.items()}
    return {key: graph.calls[r[0].call].operation for key, r in refs.items() if len(r) == 1}


def _open_shapes(graph: Graph) -> dict[str, Shape]:
    """Shapes of inputs, and of outputs of unknown size of other layers, without the batch."""
    shapes = {c.operation: c.outputs[0].shape[1:] for c in graph.calls if c.outputs}
    inputs = set(_names(graph))
    return {name: shape for name, shape in shapes.items() if name in inputs or None in shape}


def _shape(name: str, shape: Any) -> tuple[int, ...]:
    sizes = list(shape) if isinstance(shape, (list, tuple)) else [shape]
    whole = [isinstance(s, (int, np.integer)) and not isinstance(s, bool) and s > 0 for s in sizes]
    if not all(whole):
        raise ModelError(
            f"input_shape={shape!r} of '{name}' is no shape of a sample: give whole numbers of at "
            "least 1 without the batch axis, for example (224, 224, 3)."
        )
    return tuple(int(size) for size in sizes)


def _check(name: str, given: Shape, wanted: Shape) -> None:
    fits = len(given) == len(wanted) and all(
        size in (None, have) for size, have in zip(wanted, given, strict=True)
    )
    if not fits:
        raise ModelError(
            f"input_shape {given} does not fit '{name}', whose samples have the shape {wanted}: "
            "give a shape without the batch axis that has those sizes."
        )
