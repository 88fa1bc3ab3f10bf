"""Everything that Saikei uses of Keras beyond its public interface.

Keras exports `operations`, `inputs` and `outputs` of a model. Which call made a tensor, with
which arguments, is stored in `KerasHistory` and `Node`, which it does not export.
"""

from __future__ import annotations

import contextlib
import inspect
import math
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
from keras.src import backend
from keras.src.backend.common import global_state
from keras.src.models.functional import Functional

from saikei.tensors import to_numpy


def is_graph_model(operation: object) -> bool:
    """Whether a model's function is exactly its own symbolic graph.

    True for Functional and Sequential models that are built, and for subclasses of them that
    do not override `call`, or declare by `computes_its_graph` that theirs gives the same.
    """
    if isinstance(operation, keras.Sequential):
        return type(operation).call is keras.Sequential.call and operation._functional is not None
    if not isinstance(operation, Functional):
        return False
    own = getattr(type(operation), "computes_its_graph", False)
    return own or type(operation).call is Functional.call


def structures(model: Any) -> tuple[Any, Any]:
    """The nested structures in which the model takes its inputs and gives its outputs."""
    functional = _functional(model)
    return functional._inputs_struct, functional._outputs_struct


def declared_inputs(model: Any) -> Any:
    """The structure of the inputs of a Functional or Sequential model whose call is its own.

    `None` where a model declares none, and only the shapes are known that it was built for.
    """
    functional = model._functional if isinstance(model, keras.Sequential) else model
    return functional._inputs_struct if isinstance(functional, Functional) else None


def standard_inputs(model: Any, inputs: Any) -> list[Any]:
    """The inputs of a model as it passes them to its input layers: flat, in its dtypes."""
    return list(_functional(model)._standardize_inputs(inputs))


def operation_names(model: Any) -> set[str]:
    """The names of the model's own operations, not of those in nested models."""
    return {operation.name for operation in _functional(model).operations}


def own_operations(model: Any) -> set[int]:
    """The `id` of every operation of a graph model and of the graph models nested in it."""
    found: set[int] = set()
    for operation in _functional(model).operations:
        found.add(id(operation))
        if is_graph_model(operation):
            found |= own_operations(operation)
    return found


def nodes_in_order(model: Any) -> list[Any]:
    """The nodes (calls) of a graph model in the order in which Keras runs them."""
    by_depth = _functional(model)._nodes_by_depth
    return [node for depth in sorted(by_depth, reverse=True) for node in by_depth[depth]]


def _functional(model: Any) -> Any:
    return model._functional if isinstance(model, keras.Sequential) else model


def producer(tensor: Any) -> tuple[Any, int, int]:
    """`(operation, node index, output index)` of the call that made a symbolic tensor."""
    history = tensor._keras_history
    return history.operation, history.node_index, history.tensor_index


def node_of(tensor: Any) -> Any:
    """The node (one call of an operation) that made a symbolic tensor."""
    operation, node_index, _ = producer(tensor)
    return operation._inbound_nodes[node_index]


def node_arguments(node: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments that the node's operation was called with."""
    return node.arguments.args, node.arguments.kwargs


def takes_training(operation: Any) -> bool:
    """Whether the operation's `call` has a `training` argument."""
    return bool(getattr(operation, "_call_has_training_arg", False))


def own_weights(layer: Any) -> list[Any]:
    """The layer's weights, in saving order; `[]` for operations that are no layers."""
    return list(layer.weights) if isinstance(layer, keras.Layer) else []


def held_weights(layer: Any) -> list[tuple[str, Any]]:
    """The weights that a layer holds itself, each with its attribute."""
    held = layer._trainable_variables + layer._non_trainable_variables
    attributes = {id(v): name for name, v in vars(layer).items() if isinstance(v, keras.Variable)}
    return [(attributes.get(id(variable), variable.name), variable) for variable in held]


def held_layers(layer: Any) -> list[tuple[str, Any]]:
    """The layers that a layer holds itself, each with its attribute, or its position in one."""
    if not layer._layers:
        return []
    places: dict[int, str] = {}
    # On torch a layer is a module, which keeps attributes that are layers in a separate dict.
    for name, value in (*vars(layer).items(), *vars(layer).get("_modules", {}).items()):
        if isinstance(value, keras.Layer):
            places.setdefault(id(value), name)
    for name, value in vars(layer).items():
        # Keras and the backends keep lists of their own of the same layers.
        if isinstance(value, (list, tuple, dict)) and name not in _INTERNAL_LISTS:
            parts = value.items() if isinstance(value, dict) else enumerate(value)
            for key, part in () if name.startswith("_self_") else parts:
                places.setdefault(id(part), f"{name}/{key}")
    held = enumerate(layer._layers)
    return [(places.get(id(part), f"layers/{number}"), part) for number, part in held]


_INTERNAL_LISTS = frozenset({"_layers", "_modules"})


def numbers(variable: Any) -> np.ndarray:
    """A variable's numbers as a read-only array, without a copy where the backend has them so.

    They do not change when the variable is assigned to.
    """
    tensorflow = keras.config.backend() == "tensorflow"
    if tensorflow and isinstance(variable, keras.Variable) and variable.dtype == "float32":
        # A tensor that is read keeps its buffer; its `numpy()` would copy it.
        return np.asarray(memoryview(variable.value.value()))
    return to_numpy(variable.value) if isinstance(variable, keras.Variable) else variable.numpy()


def quantisation_of(layer: Any) -> str | None:
    """How the layer's own weights are quantised (`"int8"`), not those of layers within it."""
    return layer.quantization_mode if getattr(layer, "_is_quantized", False) else None


def compile_arguments(model: Any) -> dict[str, Any]:
    """What `keras.Model.compile` was called with, as it was given."""
    return dict(getattr(getattr(model, "_compile_config", None), "config", {}))


def flattened_layers(layer: Any) -> list[Any]:
    """The layer and every layer in it."""
    return list(layer._flatten_layers()) if isinstance(layer, keras.Layer) else []


def use_assigned_statistics(layer: Any) -> None:
    """Let every `Normalization` in a layer compute with its weights.

    It computes with constants that it makes from them when it is built, adapted or loaded.
    """
    for part in flattened_layers(layer):
        if isinstance(part, keras.layers.Normalization) and part.built:
            part.finalize_state()


def detached_copy(operation: Any) -> Any:
    """A copy of a stateless operation that is in no graph yet."""
    twin = object.__new__(type(operation))
    twin.__dict__.update(operation.__dict__)
    twin._inbound_nodes = []
    twin._outbound_nodes = []
    return twin


def overrides_call(layer: Any) -> bool:
    """Whether a layer's `call` is not Keras's own, so that only tracing shows what it does."""
    if not isinstance(layer, keras.Layer) or is_graph_model(layer):
        return False
    return not type(layer).call.__module__.startswith("keras.src.")


def input_shapes(model: Any) -> dict[str, Any]:
    """The shapes that the model was built for, by argument of `build`; empty if unknown.

    Keras leaves out those that `build` was not given and took from its own defaults.
    """
    given = dict(model._build_shapes_dict or {})
    if model._build_shapes_dict is not None and not given:
        parameters = inspect.signature(type(model).build).parameters.values()
        defaults = {p.name: p.default for p in parameters if isinstance(p.default, (tuple, list))}
        given = {name: shape for name, shape in defaults.items() if shape}
    return given


def built_shape(operation: Any) -> tuple[int | None, ...] | None:
    """The shape of the one tensor that a layer was built for, batch axis first."""
    shapes = list((getattr(operation, "_build_shapes_dict", None) or {}).values())
    if len(shapes) != 1 or not isinstance(shapes[0], (list, tuple)) or not shapes[0]:
        return None
    sizes = tuple(shapes[0])
    return sizes if all(size is None or isinstance(size, int) for size in sizes) else None


def built_shapes(model: Any) -> list[tuple[int | None, ...]]:
    """The shapes that the layers in a model were built for, each once."""
    found = (built_shape(layer) for layer in flattened_layers(model))
    return list(dict.fromkeys((None, *shape[1:]) for shape in found if shape is not None))


def call_arguments(layer: Any, args: Any, kwargs: Any) -> dict[str, Any]:
    """The arguments of a call by name, with `None` or the default for those not given."""
    given = {k: v for k, v in kwargs.items() if k != "training"}
    bound = inspect.signature(layer.call).bind(*args, **given)
    bound.apply_defaults()
    return dict(bound.arguments)


def mask_of(tensor: Any) -> Any:
    """The mask that a layer left on a tensor, such as that of `Embedding(mask_zero=True)`."""
    return backend.get_keras_mask(tensor)


def set_mask(tensor: Any, mask: Any) -> None:
    """Leave a mask on a tensor, for the layers that read it."""
    backend.set_keras_mask(tensor, mask)


def history_of(tensor: Any) -> Any:
    """Keras's record of the call that made a symbolic tensor, or `None`."""
    return getattr(tensor, "_keras_history", None)


def autocast(variable: Any, dtype: str) -> str:
    """The dtype in which a layer that computes in `dtype` reads a variable."""
    casts = variable._autocast and keras.backend.is_float_dtype(variable.dtype)
    return dtype if casts else str(variable.dtype)


@contextmanager
def forgotten_nodes(layer: Any) -> Iterator[None]:
    """Remove the nodes that calls within the block leave on the layer and on those in it."""
    layers = flattened_layers(layer)
    counts = [(len(part._inbound_nodes), len(part._outbound_nodes)) for part in layers]
    try:
        yield
    finally:
        for part, (inbound, outbound) in zip(layers, counts, strict=True):
            del part._inbound_nodes[inbound:]
            del part._outbound_nodes[outbound:]


def another_lambda(layer: Any, name: str) -> Any:
    """A `Lambda` with the functions of another one; Keras makes none of lambdas from a config."""
    return keras.layers.Lambda(
        layer.function,
        output_shape=layer._output_shape,
        mask=layer.mask,
        arguments=layer.arguments,
        name=name,
        dtype=layer.dtype_policy,
    )


def embeddings(layer: Any) -> dict[int, Any]:
    """For the weight of each embedding in a layer, by id, the embedding."""
    return {
        id(part._embeddings): part
        for part in flattened_layers(layer)
        if isinstance(part, keras.layers.Embedding)
        and part.built
        and part.quantization_mode is None
        and not part.lora_enabled
    }


def layer_settings(layer: Any) -> dict[str, Any] | None:
    """A layer's config without its name; `None` where it has none."""
    try:
        return {key: value for key, value in layer.get_config().items() if key != "name"}
    except (NotImplementedError, AttributeError, KeyError, TypeError, ValueError):
        return None


# Where Keras notes variables whose values are still to be made.
_PENDING = "uninitialized_variables"


def declared_bytes(config: Mapping[str, Any], custom: Mapping[str, Any] | None = None) -> int:
    """Bytes of all weights that a config declares.

    The model is made without values for its weights, and discarded.

    Args:
        config: Config of a model, as in `config.json` of a `.keras` file.
        custom: Classes and functions that Keras does not know, by name.
    """
    pending = global_state.get_global_attribute(_PENDING, [], set_to_default=True)
    before = len(pending)
    # Depending on the file Keras raises any error, and raises it again when the file is loaded.
    # Until then it takes no more memory than is counted here.
    with contextlib.suppress(Exception), keras.StatelessScope(initialize_variables=False):
        keras.saving.deserialize_keras_object(
            {**config, "compile_config": None}, custom_objects=custom, safe_mode=True
        )
    made = pending[before:]
    del pending[before:]
    return sum(math.prod(variable.shape) * _itemsize(variable.dtype) for variable in made)


def _itemsize(dtype: str) -> int:
    bits = re.search(r"\d+", dtype)
    return max(1, int(bits[0]) // 8) if bits else 1
