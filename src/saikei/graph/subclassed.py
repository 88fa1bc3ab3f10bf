"""A subclassed model, run once on symbolic inputs."""

from __future__ import annotations

from typing import Any

import keras
from keras import tree

from saikei.errors import ModelError
from saikei.graph import internals
from saikei.graph.flat import Graph
from saikei.graph.retrace import Step, Trace, trace
from saikei.graph.untraceable import UntraceableError


def traced_model(model: Any) -> tuple[Any, Trace]:
    """The steps of a subclassed model's `call`.

    Args:
        model: A model that has been called, or built for a known input shape.

    Returns:
        The nested structure of symbolic inputs, and the trace that starts from them.

    Raises:
        ModelError: When its input shape is unknown or its `call` cannot be traced.
    """
    shapes = internals.input_shapes(model)
    if not model.built:
        raise ModelError(
            f"Model '{model.name}' is a subclassed model ({type(model).__name__}) that has not "
            "been built, so its shapes are unknown: call it once on a batch of data first."
        )
    declared = internals.declared_inputs(model)
    if declared is not None:
        return _traced_on(model, {"inputs": tree.map_structure(_another, declared)})
    if shapes:
        return _on_unknown_types(model, shapes)
    return _on_shapes_of_layers(model)


def _traced_on(model: Any, inputs: dict[str, Any]) -> tuple[Any, Trace]:
    try:
        return _rooted(inputs, trace(model, *_as_arguments(inputs)))
    except UntraceableError as error:
        raise untraceable_model(model, error) from error


def _another(tensor: Any) -> Any:
    return keras.Input(batch_shape=tensor.shape, dtype=tensor.dtype, name=tensor.name)


def _on_shapes_of_layers(model: Any) -> tuple[Any, Trace]:
    """The trace of a model whose own input shape is recorded nowhere.

    Its `build` takes no shape, or Keras could not run its `call` on symbolic tensors. A layer that
    reads the input was built for the input's shape: the shapes of the layers in the model are
    tried, and the one is taken for which each layer gets what it was built for.
    """
    reasons = []
    for shape in internals.built_shapes(model):
        try:
            struct, traced = _on_unknown_types(model, {"inputs": shape})
        except ModelError as error:
            reasons.append(error)
            continue
        if all(map(_is_as_built, traced.steps.values())):
            return struct, traced
    if reasons and type(model).build is keras.Model.build:
        raise reasons[0]
    raise ModelError(
        f"Model '{model.name}' ({type(model).__name__}) was built without a shape, so the shape "
        "of its input is unknown: put it into a model that has one, "
        "inputs = keras.Input(shape); keras.Model(inputs, model(inputs))."
    )


def _is_as_built(step: Step) -> bool:
    """Whether a layer gets the shape that it was built for, as far as both are known."""
    built = internals.built_shape(step.operation)
    given = [tuple(tensor.shape) for tensor in step.inputs()]
    if built is None or len(given) != 1:
        return True
    pairs = zip(built[1:], given[0][1:], strict=len(built) == len(given[0]))
    return len(built) == len(given[0]) and all(
        None in pair or len(set(pair)) == 1 for pair in pairs
    )


def _on_unknown_types(model: Any, shapes: dict[str, Any]) -> tuple[Any, Trace]:
    reasons = []
    # The dtype of the inputs is recorded nowhere. Where floats do not go through (tokens that
    # index something), integers do.
    for dtype in (str(model.input_dtype), "int32"):
        inputs = _symbolic_inputs(shapes, dtype)
        try:
            traced = trace(model, *_as_arguments(inputs))
        except UntraceableError as error:
            reasons.append(error)
            continue
        if dtype != "int32" and _are_tokens(inputs, traced):
            continue
        return _rooted(inputs, traced)
    raise untraceable_model(model, reasons[0])


def untraceable_model(model: Any, error: UntraceableError) -> ModelError:
    """The error for a model whose `call` cannot be traced."""
    return ModelError(
        f"Model '{model.name}' ({type(model).__name__}) cannot be traced: {error}. {error.fix}."
    )


def check_weights(model: Any, graph: Graph) -> None:
    """Refuse weights that are made in a call, and weights that two layers hold."""
    own = {id(variable) for variable in model.variables}
    places: dict[int, str] = {}
    for operation in graph.operations.values():
        for name, weight in operation.weights.items():
            if weight.key not in own:
                fix = "make layers in __init__ and hold them as attributes"
                if internals.is_graph_model(model):
                    fix = "call that layer in the model itself, not within a function or Lambda"
                raise ModelError(
                    f"Weight '{name}' of layer '{operation.name}' is none of the weights of model "
                    f"'{model.name}': {fix}."
                )
            other = places.setdefault(weight.key, operation.name)
            if other != operation.name and operation.untraced is not None:
                raise ModelError(
                    f"Layer '{operation.name}' ({operation.kind}) holds weight '{name}' of layer "
                    f"'{other}' and its call cannot be traced ({operation.untraced}): let it use "
                    "layers and keras.ops only."
                )


def _symbolic_inputs(shapes: dict[str, Any], dtype: str) -> dict[str, Any]:
    inputs = {}
    for argument, structure in shapes.items():
        name = argument.removesuffix("_shape")
        inputs[name] = _named_inputs(structure, name, dtype)
    return inputs


def _named_inputs(shapes: Any, name: str, dtype: str) -> Any:
    """Inputs in the structure of the shapes; those of a dictionary are named by their keys."""
    if isinstance(shapes, dict):
        return {key: _named_inputs(shape, str(key), dtype) for key, shape in shapes.items()}
    # A shape itself is a list too where the model was loaded from a file.
    if any(isinstance(part, (list, tuple, dict)) for part in shapes):
        parts = enumerate(shapes)
        return type(shapes)(_named_inputs(part, f"{name}_{i}", dtype) for i, part in parts)
    return keras.Input(tuple(shapes[1:]), dtype=dtype, name=name)


def _as_arguments(inputs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """One shape is that of the first argument, whatever `build` calls it."""
    if len(inputs) == 1:
        return tuple(inputs.values()), {}
    return (), inputs


def _are_tokens(inputs: Any, traced: Trace) -> bool:
    """Whether every input is only ever looked up in an embedding."""
    own = {id(t) for t in tree.flatten(inputs)}
    stand_ins = {key for key, original in traced.stand_ins.items() if id(original) in own}
    readers = [
        type(step.operation)
        for step in traced.steps.values()
        if stand_ins & {id(tensor) for tensor in step.inputs()}
    ]
    return bool(readers) and all(issubclass(cls, keras.layers.Embedding) for cls in readers)


def _rooted(inputs: dict[str, Any], traced: Trace) -> tuple[Any, Trace]:
    struct = next(iter(inputs.values())) if len(inputs) == 1 else list(inputs.values())
    return struct, traced
