"""Layers of a graph that are made for computing it, and what single calls of them give."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import keras
from keras import tree

from saikei.calibration.direct import Direct, direct
from saikei.calibration.values import Value, in_batches, is_plain
from saikei.graph import Call, Graph, Operation
from saikei.graph.instantiate import made_layer
from saikei.graph.internals import takes_training


@dataclass(frozen=True)
class Outcome:
    """The outputs of a call.

    Args:
        before: Its output tensors before the fused activation.
        after: Its output tensors.
    """

    before: tuple[Value, ...]
    after: tuple[Value, ...]


class Layers:
    """Layers of a graph, each made once.

    Args:
        graph: The graph whose layers they are.
    """

    def __init__(self, graph: Graph) -> None:
        self._operations = graph.operations
        self._made: dict[str, Any] = {}
        self._functions: dict[str, Direct | None] = {}

    def holds(self, operation: Operation) -> bool:
        """Whether an operation is one of the graph, with the same weights and settings."""
        own = self._operations.get(operation.name)
        return own is not None and same_operation(operation, own)

    def replace(self, operation: Operation) -> None:
        """Take another operation of the same name as that of the graph."""
        self._operations = {**self._operations, operation.name: operation}
        self.release([operation.name])

    def release(self, names: Iterable[str]) -> None:
        """Forget layers that are not called again, and the memory of their weights."""
        for name in names:
            self._made.pop(name, None)
            self._functions.pop(name, None)

    def function(self, operation: Operation) -> Direct | None:
        """The operation as functions, made once; `None` where it is not one of those."""
        if operation.name not in self._functions:
            self._functions[operation.name] = direct(operation)
        return self._functions[operation.name]

    def instance(self, graph: Graph, call: Call) -> Any:
        """The layer of a call with its weights, made once."""
        if call.operation not in self._made:
            self._made[call.operation] = made_layer(graph, call)
        return self._made[call.operation]


def outcome_of(
    layers: Layers, graph: Graph, call: Call, arguments: list[Any], rows: int, before: bool = True
) -> Outcome:
    """What a call gives.

    Args:
        layers: Where its layer is made.
        graph: The graph of the call.
        call: The call.
        arguments: The leaves of its arguments, tensors as `Value`.
        rows: How many rows the tensors have.
        before: Whether its outputs before the activation are wanted too; without, both are those
            after it.
    """
    operation = graph.operations[call.operation]
    if len(tensors := [one for one in arguments if isinstance(one, Value)]) == 1:
        function = layers.function(operation) if is_plain(tensors[0]) else None
        if function is not None:
            return _of_function(function, tensors[0], before)
    layer = layers.instance(graph, call)
    run = partial(called, layer, call)
    activation = fused_activation(operation, layer)
    if activation is None or not before:
        outputs = in_batches(run, arguments, rows)
        return Outcome(outputs, outputs)
    layer.activation = None
    try:
        linear = in_batches(run, arguments, rows)
    finally:
        layer.activation = activation
    after = in_batches(lambda given: activation(given[0]), [linear[0]], rows)
    return Outcome(linear, (replace(after[0], mask=linear[0].mask),))


def _of_function(function: Direct, given: Value, before: bool) -> Outcome:
    rows, activation = len(given.array), function.activation
    if activation is None or before:
        linear = in_batches(lambda x: function.linear(x[0]), [given], rows)
        if activation is None:
            return Outcome(linear, linear)
        return Outcome(linear, in_batches(lambda x: activation(x[0]), [linear[0]], rows))
    after = in_batches(lambda x: activation(function.linear(x[0])), [given], rows)
    return Outcome(after, after)


def same_operation(one: Operation, other: Operation) -> bool:
    """Whether two operations are the same layer, with the same settings and arrays."""
    return one is other or (
        one.source is other.source
        and one.config == other.config
        and one.weights.keys() == other.weights.keys()
        and all(
            weight.source is other.weights[name].source
            and weight.shape == other.weights[name].shape
            for name, weight in one.weights.items()
        )
    )


def fused_activation(operation: Operation, layer: Any) -> Any:
    """The function that a layer applies last, where it is an argument of the layer."""
    if operation.kind == "Activation" or "activation" not in (operation.config or {}):
        return None
    if not {"kernel"} & set(operation.weights):
        return None
    activation = getattr(layer, "activation", None)
    return None if activation is keras.activations.linear else activation


def called(layer: Any, call: Call, given: list[Any]) -> Any:
    """What a layer gives for the leaves of a call's arguments."""
    args, kwargs = tree.pack_sequence_as((call.args, dict(call.kwargs)), given)
    if takes_training(layer) and len(args) < 2:
        # As `predict` does, whatever the layer was connected with.
        kwargs = {**kwargs, "training": False}
    return layer(*args, **kwargs)
