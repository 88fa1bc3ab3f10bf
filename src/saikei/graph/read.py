"""From a `keras.Model` to a flat `Graph`."""

from __future__ import annotations

from typing import Any

import keras
from keras import tree

from saikei.errors import ModelError
from saikei.graph import internals
from saikei.graph.compiling import compiled_as
from saikei.graph.flat import Call, Graph, Operation
from saikei.graph.lineage import ignored_classes, marks_of
from saikei.graph.nested import masks_left
from saikei.graph.reader import Level, Reader
from saikei.graph.rewrite import new_operation, replace_operations, unused_name
from saikei.graph.subclassed import check_weights, traced_model, untraceable_model
from saikei.graph.untraceable import UntraceableError


def read(model: keras.Model) -> Graph:
    """Read a model; nested models and composite layers are inlined.

    A subclassed model, and a layer with a `call` of its own that no rule is known for, are run
    once on symbolic tensors to see which layers and operations they call.

    Args:
        model: A built model. It is not changed.

    Returns:
        The flat graph. Its weights refer to the model's variables; nothing is copied.

    Raises:
        ModelError: When the object is no model, is not built, or cannot be traced.
    """
    _check_readable(model)
    held = {id(layer) for layer in internals.flattened_layers(model)}
    opaque: dict[int, str] = {}
    while True:
        found = dict(opaque)
        graph = _read(model, found)
        # A layer that could not be traced in one of its calls is kept whole in all of them.
        # Layers made in a call are others each time.
        found = {key: reason for key, reason in found.items() if key in held}
        if found.keys() == opaque.keys():
            check_weights(model, graph)
            return _with_true_text_shapes(graph)
        opaque = found


def _read(model: Any, opaque: dict[int, str]) -> Graph:
    if internals.is_graph_model(model):
        inputs_struct, outputs_struct = internals.structures(model)
        inputs, outputs = list(model.inputs), list(model.outputs)
        steps, own = None, internals.operation_names(model)
    else:
        inputs_struct, traced = traced_model(model)
        inputs = tree.flatten(inputs_struct)
        outputs_struct, outputs = traced.outputs, tree.flatten(traced.outputs)
        steps, own = traced, {layer.name for layer in internals.flattened_layers(model)}
    reader = Reader(own, opaque, model)
    level = Level("", None, left={} if steps is not None else masks_left(model))
    bound = [reader.add_input(level, tensor) for tensor in inputs]
    if steps is not None:
        level = Level("", None, steps, level, fresh=True)
    try:
        refs = reader.walk(level, outputs)
        reader.settle()
    except UntraceableError as error:
        raise untraceable_model(model, error) from error
    return Graph(
        name=model.name,
        operations=reader.operations,
        calls=tuple(reader.calls),
        inputs=tree.pack_sequence_as(inputs_struct, bound),
        outputs=tree.pack_sequence_as(outputs_struct, refs),
        marks=(*marks_of(model), *ignored_classes(model), *compiled_as(model)),
        ends=reader.ends,
    )


def _check_readable(model: Any) -> None:
    if not isinstance(model, keras.Model):
        raise ModelError(f"Expected a keras.Model, got {type(model).__name__}: hand in a model.")
    if isinstance(model, keras.Sequential) and internals.declared_inputs(model) is None:
        raise ModelError(
            f"Model '{model.name}' is not built, so its shapes are unknown: "
            "call model.build(input_shape) or add a keras.Input first."
        )


def _with_true_text_shapes(graph: Graph) -> Graph:
    """The graph with the second axis of texts dropped before each `TextVectorization`.

    Of texts of shape `(batch, 1)` the layer drops the second axis before it splits them, which its
    `compute_output_shape` leaves in. Layers behind it that depend on the number of axes, such as
    PReLU, would be built for tensors that never come.
    """
    wrong = dict.fromkeys(call.operation for call in graph.calls if _is_wrong(graph, call))
    for operation in map(graph.operations.__getitem__, wrong):
        name = unused_name(graph, f"{operation.name}_texts")
        drop = new_operation(name, keras.layers.Reshape((), dtype="string", name=name))
        try:
            graph = replace_operations(graph, {operation.name: (drop, operation)})
        except ModelError:
            # The next layer needs the axis that Keras computes, and would fail on data.
            continue
    return graph


def drops_text_axis(operation: Operation) -> bool:
    """Whether it is the reshape that `read` puts before a `TextVectorization`."""
    return operation.kind == "Reshape" and (operation.config or {}).get("target_shape") == ()


def _is_wrong(graph: Graph, call: Call) -> bool:
    operation = graph.operations[call.operation]
    config = operation.config or {}
    if operation.kind != "TextVectorization" or config.get("split") is None:
        return False
    (taken,) = (graph.spec(ref) for ref in call.inputs())
    return len(taken.shape) > 1 and len(call.outputs[0].shape) > len(taken.shape)
