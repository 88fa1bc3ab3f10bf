"""A head that flattens a map, and the same head on a pooled one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
from keras import tree

from saikei.graph import Graph, Operation, TensorRef


@dataclass(frozen=True)
class FlattenedHead:
    """A `Flatten` of a map, and the layers that read it one after the other up to an output.

    Args:
        at: Name of the layer that gives the map.
        rank: Number of the map's spatial axes.
        data_format: The data format of the map, as the `Flatten` has it.
        behind: The layers behind the `Flatten`, in order.
        layers: Names of the `Flatten` and of the layers behind it.
    """

    at: str
    rank: int
    data_format: str
    behind: tuple[Operation, ...]
    layers: tuple[str, ...]

    def pooled(self, pooling: str) -> list[Any]:
        """The head with a global pooling in place of the `Flatten`, all its layers new."""
        name = f"Global{'Average' if pooling == 'avg' else 'Max'}Pooling{self.rank}D"
        pool = getattr(keras.layers, name)(data_format=self.data_format, name=self.layers[0])
        return [pool, *(_new(operation) for operation in self.behind)]


def flattened_head(graph: Graph, output: TensorRef) -> FlattenedHead | None:
    """The head of an output, where it flattens a map of more than one position.

    Returns:
        `None` where there is no such head, or something in it is shared or quantised.
    """
    calls = [call.operation for call in graph.calls]
    ref, behind = output, list[Operation]()
    while True:
        call = graph.calls[ref.call]
        operation = graph.operations[call.operation]
        inputs = [leaf for leaf in tree.flatten(call.args) if isinstance(leaf, TensorRef)]
        shared = calls.count(operation.name) > 1 or _readers(graph, ref) > 1
        if len(inputs) != 1 or shared or operation.quantised or operation.config is None:
            return None
        shape = graph.spec(inputs[0]).shape
        if operation.kind == "Flatten" and 3 <= len(shape) <= 5:
            break
        if not isinstance(operation.source, keras.Layer):
            return None
        behind.insert(0, operation)
        ref = inputs[0]
    first = str(operation.config["data_format"]) == "channels_first"
    places = shape[2:] if first else shape[1:-1]
    map_layer = graph.calls[inputs[0].call].operation
    single = all(size == 1 for size in places) or calls.count(map_layer) > 1
    if single or graph.operations[map_layer].kind == "InputLayer" or not behind:
        return None
    data_format = "channels_first" if first else "channels_last"
    names = (operation.name, *(one.name for one in behind))
    return FlattenedHead(map_layer, len(shape) - 2, data_format, tuple(behind), names)


def _readers(graph: Graph, ref: TensorRef) -> int:
    outputs = graph.output_refs().count(ref)
    return outputs + sum(call.inputs().count(ref) for call in graph.calls)


def _new(operation: Operation) -> keras.Layer:
    layer: keras.Layer = type(operation.source).from_config(dict(operation.config or {}))
    return layer
