"""Values of tensors inside a model: its own layers are called in the order of its graph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import keras
from keras import ops, tree

from saikei.errors import ModelError
from saikei.graph import internals, own_functions
from saikei.graph.flat import Graph, TensorRef
from saikei.graph.instantiate import made_layer
from saikei.graph.per_step import Joined, regions_of
from saikei.graph.read import drops_text_axis


def tensor_values(
    graph: Graph,
    model: Any,
    inputs: Any,
    refs: Sequence[TensorRef],
    training: bool | None = None,
) -> list[Any]:
    """Run a model and return tensors on the way, also those in nested models.

    Unlike a new model between the same tensors, this adds nothing to the model: no layer is
    built or connected anew.

    Args:
        graph: The graph that `read` gives for the model.
        model: The model to run.
        inputs: Tensors or arrays, as the model takes them.
        refs: The tensors to return.
        training: The argument of a call of the model.

    Returns:
        The tensors, in the order of `refs`; gradients pass through them.
    """
    tensors = dict(zip(graph.input_refs(), internals.standard_inputs(model, inputs), strict=True))
    regions = regions_of(graph.operations, graph.calls)
    # A `TimeDistributed` is called as a whole, unless a tensor within is asked for.
    open_ones = {()} | {regions[r.call][: n + 1] for r in refs for n in range(len(regions[r.call]))}
    for index, call in enumerate(graph.calls):
        if TensorRef(index, 0) in tensors or regions[index] not in open_ones:
            continue
        operation = graph.operations[call.operation].layer
        if isinstance(operation, Joined) and regions[call.inputs()[0].call] not in open_ones:
            # The wrapper itself does what lies between its ends, as it does in the model.
            operation, call = operation.wrapped(), replace(call, args=(call.args[0][1],))
        args, kwargs = tree.map_structure(
            lambda leaf: tensors[leaf] if isinstance(leaf, TensorRef) else leaf,
            (call.args, dict(call.kwargs)),
        )
        if training is not None and internals.takes_training(operation):
            # As in Functional models, this replaces the argument of the recorded call.
            kwargs = {**kwargs, "training": training}
        outputs = operation(*args, **kwargs)
        for position, output in enumerate(tree.flatten(outputs)):
            tensors[TensorRef(index, position)] = output
    return [tensors[ref] for ref in refs]


def outputs_once(graph: Graph, inputs: Any) -> list[Any]:
    """The outputs of a graph at inference, flattened.

    Layers are made one at a time, so that it takes the memory of one layer.

    Args:
        graph: The graph, of which no model need be built.
        inputs: Arrays, nested as the graph nests its inputs.
    """
    leaves = [ops.convert_to_tensor(leaf) for leaf in tree.flatten(inputs)]
    tensors = dict(zip(graph.input_refs(), leaves, strict=True))
    last_call = {call.operation: index for index, call in enumerate(graph.calls)}
    last_use = {ref: index for index, call in enumerate(graph.calls) for ref in call.inputs()}
    last_use |= dict.fromkeys(graph.output_refs(), len(graph.calls))
    made: dict[str, Any] = {}
    for index, call in enumerate(graph.calls):
        if TensorRef(index, 0) in tensors:
            continue
        if call.operation not in made:
            made[call.operation] = made_layer(graph, call)
        layer = made[call.operation]
        args, kwargs = tree.map_structure(
            lambda leaf: tensors[leaf] if isinstance(leaf, TensorRef) else leaf,
            (call.args, dict(call.kwargs)),
        )
        if internals.takes_training(layer):
            kwargs = {**kwargs, "training": False}
        for position, output in enumerate(tree.flatten(layer(*args, **kwargs))):
            tensors[TensorRef(index, position)] = output
        if last_call[call.operation] == index:
            del made[call.operation], layer
        for ref in call.inputs():
            if last_use[ref] == index:
                tensors.pop(ref, None)
    return [tensors[ref] for ref in graph.output_refs()]


def check_runs_as_read(graph: Graph, model: Any) -> None:
    """Refuse models of which calling the graph's operations is not quite calling the model.

    The steps of a `call` of the user's own are known from runs of it on symbolic tensors only.

    Raises:
        ModelError: With a layer that was found by running a `call`.
    """
    own = internals.own_operations(model) if internals.is_graph_model(model) else set()
    regions = regions_of(graph.operations, graph.calls)
    wrapped = {call.operation for call, at in zip(graph.calls, regions, strict=True) if at}
    for name, operation in graph.operations.items():
        source = operation.layer
        source = source.wrapped() if isinstance(source, Joined) else own_functions.whole(source)
        known = id(source) in own or name in wrapped or drops_text_axis(operation)
        if isinstance(source, keras.Layer) and not known:
            raise ModelError(
                f"Layer '{name}' of model '{model.name}' is called within the call of a class of "
                "its own, where tensors cannot be looked at while it trains: use a model that an "
                "edit has made of it, in which there are no such classes."
            )
