"""Everything that Saikei uses of Keras beyond its public surface, in one place.

Keras exports `operations`, `inputs` and `outputs` of a model. Which call made a tensor, with
which arguments, is kept in `KerasHistory` and `Node`, which it does not export.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

import keras
import numpy as np
from keras.src import backend
from keras.src.backend.common.keras_tensor import any_symbolic_tensors
from keras.src.models.functional import Functional

from saikei.graph.symbolic_activations import activation_swaps
from saikei.tensors import to_numpy

# Where an attribute stands, its name, and its old and new value.
_Swap: TypeAlias = tuple[dict[str, Any], str, Any, Any]


def is_graph_model(operation: object) -> bool:
    """Whether a model's function is exactly its own symbolic graph.

    True for Functional and Sequential models that are built, and for subclasses of them that
    do not override `call`, or say by `computes_its_graph` that theirs gives the same.
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
    """What a model is called with, as it hands it to its input layers: flat, in its dtypes."""
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
    """The weights that a layer holds itself, each with the attribute that it is."""
    held = layer._trainable_variables + layer._non_trainable_variables
    attributes = {id(v): name for name, v in vars(layer).items() if isinstance(v, keras.Variable)}
    return [(attributes.get(id(variable), variable.name), variable) for variable in held]


def held_layers(layer: Any) -> list[tuple[str, Any]]:
    """The layers that a layer holds itself, each with its attribute, or its place in one."""
    places: dict[int, str] = {}
    # On torch a layer is a module, which keeps its attributes that are layers in a place apart.
    for name, value in (*vars(layer).items(), *vars(layer).get("_modules", {}).items()):
        if isinstance(value, keras.Layer):
            places.setdefault(id(value), name)
    for name, value in vars(layer).items():
        # Keras and the backends keep books of their own of the same layers.
        if isinstance(value, (list, tuple, dict)) and name not in _BOOKS:
            parts = value.items() if isinstance(value, dict) else enumerate(value)
            for key, part in () if name.startswith("_self_") else parts:
                places.setdefault(id(part), f"{name}/{key}")
    held = enumerate(layer._layers)
    return [(places.get(id(part), f"layers/{number}"), part) for number, part in held]


_BOOKS = frozenset({"_layers", "_modules"})


def numbers(variable: Any) -> np.ndarray:
    """A variable's numbers as a read-only array, without a copy where the backend has them so.

    They stay as they are when the variable is assigned to.
    """
    tensorflow = keras.config.backend() == "tensorflow"
    if tensorflow and isinstance(variable, keras.Variable) and variable.dtype == "float32":
        # A tensor that is read keeps its buffer; its `numpy()` would copy it.
        return np.asarray(memoryview(variable.value.value()))
    return to_numpy(variable.value) if isinstance(variable, keras.Variable) else variable.numpy()


def quantisation_of(layer: Any) -> str | None:
    """How the layer's own weights are quantised (`"int8"`), not those of layers within it."""
    return layer.quantization_mode if getattr(layer, "_is_quantized", False) else None


def flattened_layers(layer: Any) -> list[Any]:
    """The layer and every layer in it."""
    return list(layer._flatten_layers()) if isinstance(layer, keras.Layer) else []


def use_assigned_statistics(layer: Any) -> None:
    """Let every `Normalization` in a layer compute with its weights.

    It computes with constants that it makes of them when it is built, adapted or loaded.
    """
    for part in flattened_layers(layer):
        if isinstance(part, keras.layers.Normalization) and part.built:
            part.finalize_state()


def detached_copy(operation: Any) -> Any:
    """A copy of a stateless operation that stands in no graph yet."""
    twin = object.__new__(type(operation))
    twin.__dict__.update(operation.__dict__)
    twin._inbound_nodes = []
    twin._outbound_nodes = []
    return twin


def kind_of(operation: Any) -> str:
    """The name under which rules know the class of a layer or operation."""
    cls = type(operation)
    if not cls.__module__.startswith("keras."):
        return f"{cls.__module__}.{cls.__qualname__}"
    name: str = cls.__name__
    return name if isinstance(operation, keras.Layer) else f"ops.{name}"


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
    """What a symbolic tensor remembers of the call that made it, or `None`."""
    return getattr(tensor, "_keras_history", None)


def autocast(variable: Any, dtype: str) -> str:
    """The dtype in which a layer that computes in `dtype` reads a variable."""
    casts = variable._autocast and keras.backend.is_float_dtype(variable.dtype)
    return dtype if casts else str(variable.dtype)


@contextmanager
def forgotten_nodes(layer: Any) -> Iterator[None]:
    """Take back the nodes that calls of the layer and of those in it leave on them."""
    layers = flattened_layers(layer)
    counts = [(len(part._inbound_nodes), len(part._outbound_nodes)) for part in layers]
    try:
        yield
    finally:
        for part, (inbound, outbound) in zip(layers, counts, strict=True):
            del part._inbound_nodes[inbound:]
            del part._outbound_nodes[outbound:]


@contextmanager
def symbolic_body(
    layer: Any,
    stand_in: Any,
    lift: Any,
    functions: Any,
    methods: Any,
    backend_name: str,
    inside: bool = False,
) -> Iterator[list[Any]]:
    """Calls of the layer run its `call` on the symbolic tensors instead of working out shapes.

    While it runs, attributes of the layer, and of those in it, that hold variables hold
    stand-ins, and what it would change or read of other variables is noted. Layers in it are
    called as usual, but where Keras cannot work out what they return, they too are run.

    Args:
        layer: the layer.
        stand_in: from a variable to what stands in for it.
        lift: from a constant that a layer with weights is called on to a symbolic tensor.
        functions: what stands in for functions of `keras.ops`, by name.
        methods: for methods of symbolic tensors, by name, from the method to what stands in.
        backend_name: what the layer is told when it asks Keras for the backend.
        inside: run layers in it that have a `call` of their own too, whatever they say of the
            shape that they return.

    Yields:
        A list that gets `(what call returned, what it did besides)`. The tensors that the layer
        itself returns are others, so that what made the inner ones is not forgotten.
    """
    caught: list[Any] = []
    swaps = [swap for part in flattened_layers(layer) for swap in _swaps_of(part, stand_in)]
    namespace = vars(keras.ops)
    swaps += [(namespace, name, namespace[name], new) for name, new in functions.items()]
    swaps += activation_swaps(flattened_layers(layer))
    for module in (keras.config, keras.backend):
        swaps.append((vars(module), "backend", module.backend, lambda: backend_name))

    def run(*args: Any, **kwargs: Any) -> Any:
        scope = _WatchingScope()
        with scope, _swapped(swaps, lift, methods, inside):
            outputs = layer.call(*args, **kwargs)
        caught.append((outputs, scope.side_effect()))
        return keras.tree.map_structure(_stand_in, outputs)

    with _replaced_symbolic_call(layer, run):
        yield caught


@contextmanager
def _replaced_symbolic_call(layer: Any, run: Any) -> Iterator[None]:
    layer.__dict__["symbolic_call"] = run
    try:
        yield
    finally:
        del layer.__dict__["symbolic_call"]


class _WatchingScope(keras.StatelessScope):
    """Notes what is read and changed of variables and which losses are added."""

    def __init__(self) -> None:
        super().__init__(collect_losses=True)
        self._read: Any = None

    def get_current_value(self, variable: Any) -> Any:
        if self._read is None:
            self._read = variable
        return super().get_current_value(variable)

    def side_effect(self) -> str | None:
        if self.losses:
            return "it adds a loss"
        if self.state_mapping:
            return "it changes its own state"
        if self._read is not None:
            return f"it computes with the weight '{self._read.path}' outside of keras.ops"
        return None


def _stand_in(tensor: Any) -> Any:
    if not isinstance(tensor, keras.KerasTensor):
        return tensor
    return keras.KerasTensor(tensor.shape, dtype=tensor.dtype)


@contextmanager
def _swapped(swaps: list[_Swap], lift: Any, methods: Any, inside: bool) -> Iterator[None]:
    """Put stand-ins in the place of variables, except while another layer is called."""
    original = keras.Layer.__call__
    usual = {name: getattr(keras.KerasTensor, name) for name in methods}

    def call(layer: Any, *args: Any, **kwargs: Any) -> Any:
        _assign(swaps, new=False)
        if layer.weights and not any_symbolic_tensors(args, kwargs):
            args = keras.tree.map_structure(lift, args)
        try:
            if inside and overrides_call(layer):
                return _run_inside(layer, original, swaps, args, kwargs)
            return original(layer, *args, **kwargs)
        except Exception:
            if inside or not overrides_call(layer):
                raise
            return _run_inside(layer, original, swaps, args, kwargs)
        finally:
            _assign(swaps, new=True)

    _assign(swaps, new=True)
    keras.Layer.__call__ = call
    for name, method in usual.items():
        setattr(keras.KerasTensor, name, methods[name](method))
    try:
        yield
    finally:
        for name, method in usual.items():
            setattr(keras.KerasTensor, name, method)
        keras.Layer.__call__ = original
        _assign(swaps, new=False)


class _ReturnedError(BaseException):
    """Carries what a `call` returned past the bookkeeping that would come after it."""

    def __init__(self, outputs: Any) -> None:
        super().__init__()
        self.outputs = outputs


def _run_inside(layer: Any, original: Any, swaps: list[_Swap], args: Any, kwargs: Any) -> Any:
    """What the layer's `call` returns, with its steps a part of those of the surrounding one."""

    def run(*args: Any, **kwargs: Any) -> Any:
        _assign(swaps, new=True)
        try:
            raise _ReturnedError(layer.call(*args, **kwargs))
        finally:
            _assign(swaps, new=False)

    with _replaced_symbolic_call(layer, run):
        try:
            return original(layer, *args, **kwargs)
        except _ReturnedError as returned:
            return returned.outputs


def _assign(swaps: list[_Swap], new: bool) -> None:
    for attributes, name, old_value, new_value in swaps:
        attributes[name] = new_value if new else old_value


def _swaps_of(layer: Any, stand_in: Any) -> Iterator[_Swap]:
    hidden = ("_trainable_variables", "_non_trainable_variables")
    for name, value in vars(layer).items():
        if isinstance(value, keras.Variable):
            yield vars(layer), name, value, stand_in(value)
        elif name not in hidden and _holds_variables_alone(value) and value:
            yield vars(layer), name, value, _with_stand_ins(value, stand_in)


# Not left to keras.tree: it sorts the keys of dictionaries, and those of the one that a compiled
# model has of its layers cannot be.
def _holds_variables_alone(value: Any) -> bool:
    if isinstance(value, dict):
        return all(map(_holds_variables_alone, value.values()))
    if isinstance(value, (list, tuple)):
        return all(map(_holds_variables_alone, value))
    return isinstance(value, keras.Variable)


def _with_stand_ins(value: Any, stand_in: Any) -> Any:
    if isinstance(value, keras.Variable):
        return stand_in(value)
    if isinstance(value, dict):
        return {key: _with_stand_ins(part, stand_in) for key, part in value.items()}
    parts = [_with_stand_ins(part, stand_in) for part in value]
    if isinstance(value, list):
        return parts
    return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)


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
