"""A member without its last activation: its outputs before softmax or sigmoid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import keras

from saikei.errors import FusionError
from saikei.fusion.members import Members
from saikei.graph import (
    Graph,
    Operation,
    TensorRef,
    new_operation,
    redirect,
    replace_operations,
    unused_name,
)
from saikei.rules.wrapping import JOINED
from saikei.scoring.outputs import read_outputs

_ENDING = frozenset(
    {"Dense", "EinsumDense", "Conv1D", "Conv2D", "Conv3D", "DepthwiseConv1D", "DepthwiseConv2D"}
    | {"SeparableConv1D", "SeparableConv2D"}
)
_LAYERS = frozenset({"Activation", "Softmax", "ops.Softmax", "ops.Sigmoid"})


def last_activation(members: Members, what_for: str) -> str:
    """The activation of the members' one output: `"softmax"`, `"sigmoid"` or `"linear"`.

    Raises:
        FusionError: When there are several outputs, or the activation is another.
    """
    outputs, name = members.outputs[0].each, members.models[0].name
    if len(outputs) != 1:
        raise FusionError(
            f"{what_for} needs members with one output, and '{name}' gives {len(outputs)}: "
            "give models of one of them."
        )
    activation = outputs[0].activation
    if activation not in ("softmax", "sigmoid", "linear"):
        raise FusionError(
            f"{what_for} needs members that end in softmax, sigmoid or nothing, and "
            f"'{name}' ends in {activation}: rebuild it without."
        )
    return activation


def to_logits(graph: Graph) -> Graph:
    """The graph of a member without its last activation, if it has one.

    Raises:
        FusionError: When its last activation cannot be removed.
    """
    if read_outputs(graph).each[0].activation == "linear":
        return graph
    (output,) = graph.output_refs()
    ends = []
    while graph.operations[graph.calls[output.call].operation].kind == JOINED:
        ends.append(graph.calls[output.call])
        output = ends[-1].inputs()[0]
    operation = graph.operations[graph.calls[output.call].operation]
    if operation.kind in _LAYERS and not _has_axis(graph, output):
        return redirect(graph, {output: graph.calls[output.call].inputs()[0]})
    config = operation.config or {}
    calls = [call for call in graph.calls if call.operation == operation.name]
    readers = [c for c in graph.calls if output in c.inputs() and c not in ends]
    if not _ends_in_it(operation) or len(calls) > 1 or readers:
        raise FusionError(
            f"The activation that '{graph.name}' ends in cannot be removed from layer "
            f"'{operation.name}' ({operation.kind}): end the model in a Dense layer or in an "
            "Activation layer."
        )
    linear = replace(operation, config={**config, "activation": "linear"})
    return graph.with_operations({operation.name: linear})


def with_logits(graph: Graph, activations: Sequence[str]) -> Graph | None:
    """A member's graph with its outputs, and behind them all its logits.

    Returns:
        `None` where the last activation of an output cannot be removed.
    """
    for index, activation in enumerate(activations):
        output = graph.output_refs()[index]
        operation = graph.operations[graph.calls[output.call].operation]
        if activation in ("softmax", "sigmoid") and _ends_in_it(operation):
            graph = replace_operations(graph, {operation.name: _divided(graph, operation)})
    logits = []
    for output, activation in zip(graph.output_refs(), activations, strict=True):
        call = graph.calls[output.call]
        if activation not in ("softmax", "sigmoid"):
            logits.append(output)
        elif graph.operations[call.operation].kind in _LAYERS and not _has_axis(graph, output):
            logits.append(call.inputs()[0])
        else:
            return None
    return replace(graph, outputs=[*graph.output_refs(), *logits])


def _ends_in_it(operation: Operation) -> bool:
    """Whether a layer ends in its `activation=`."""
    named = (operation.config or {}).get("activation")
    return operation.kind.removesuffix("Transpose") in _ENDING and named is not None


def _divided(graph: Graph, operation: Operation) -> list[Operation]:
    """A layer without its activation, and the activation as a layer of its own."""
    config = dict(operation.config or {})
    activation = keras.layers.Activation(config["activation"], name=operation.name)
    name = unused_name(graph, f"{operation.name}_logits")
    linear = replace(operation, name=name, config={**config, "activation": "linear", "name": name})
    return [linear, new_operation(operation.name, activation)]


def _has_axis(graph: Graph, output: TensorRef) -> bool:
    """Whether a softmax layer runs over another axis than the last, which logits would lose."""
    operation = graph.operations[graph.calls[output.call].operation]
    return (operation.config or {}).get("axis", -1) not in (-1, len(graph.spec(output).shape) - 1)
