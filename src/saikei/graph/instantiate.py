"""A layer of Keras made again from an operation of a graph: its config, weights and other state."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any

import keras
from keras import tree

from saikei.errors import ModelError, in_one_line
from saikei.graph import internals
from saikei.graph.describe import layer_config, weight_names
from saikei.graph.flat import Call, Graph, Operation, TensorRef, Weight
from saikei.graph.own_functions import found_functions
from saikei.graph.state import build_as_saved, carry_state

# Layers of which a call with arrays changes nothing.
_STATELESS = (
    keras.layers.Dense,
    keras.layers.EinsumDense,
    keras.layers.Embedding,
    keras.layers.LayerNormalization,
    keras.layers.ReversibleEmbedding,
    keras.layers.RMSNormalization,
    keras.layers.Softmax,
)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw the seeds that Keras makes for unseeded initialisers and dropouts from `seed`.

    Keras takes them from Python's global generator, whose state is restored at the end.
    """
    state = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(state)


def instantiate(operation: Operation) -> Any:
    """A new layer or operation, not yet built, from an operation of a graph.

    Raises:
        ModelError: When its class cannot make it from its config.
    """
    if operation.config is None:
        if operation.weights:
            raise ModelError(
                f"Layer '{operation.name}' ({operation.kind}) gives no config that it could be "
                f"made again from. {_fix(operation)}."
            )
        return internals.detached_copy(operation.source)
    # Classes remove entries from the config that they are given, also from those within it.
    config: dict[str, Any] = _copied(operation.config)
    if "name" in config:
        config["name"] = operation.name
    try:
        with found_functions(operation.source):
            instance = type(operation.source).from_config(config)
    except (ValueError, TypeError, KeyError) as error:
        raise ModelError(
            f"Layer '{operation.name}' ({operation.kind}) cannot be made again from its own "
            f"config: {in_one_line(error)}. {_fix(operation)}."
        ) from error
    for twin, original in zip(
        internals.flattened_layers(instance),
        internals.flattened_layers(operation.source),
        strict=False,
    ):
        twin.trainable = original.trainable
    build_as_saved(operation.source, instance)
    if operation.spectral is None:
        return instance
    return keras.layers.SpectralNormalization(
        instance, **{**operation.spectral.config, "name": operation.name}
    )


def _copied(config: Any) -> Any:
    """The config with dictionaries and lists of its own, at any depth; the rest as it is."""
    if isinstance(config, Mapping):
        return {key: _copied(value) for key, value in config.items()}
    return [_copied(value) for value in config] if isinstance(config, list) else config


def _fix(operation: Operation) -> str:
    """A fix for a layer that cannot be made again from its config."""
    if type(operation.source).__module__.startswith("keras."):
        return (
            f"It is a layer of Keras {keras.version()}, so build the model with another layer in "
            "its place"
        )
    return "Fix its get_config() or from_config()"


@contextmanager
def preloaded(operation: Operation, instance: Any) -> Iterator[dict[int, str]]:
    """Let the layer create its own variables with their final numbers.

    Creating them with other numbers first takes half of the time of a build. Variables that are
    not created by `add_weight`, or belong to a layer within it, are loaded later.

    Yields:
        The name of each variable that has its numbers, by the variable's `id`.
    """
    loaded: dict[int, str] = {}
    if not operation.weights:
        yield loaded
        return
    add_weight = instance.add_weight
    waiting = dict(operation.weights)

    def add_loaded_weight(*args: Any, name: str | None = None, **kwargs: Any) -> Any:
        weight = waiting.pop(name or "", None)
        shape = kwargs.get("shape", args[0] if args else ())
        if weight is None or tuple(shape) != weight.shape:
            return add_weight(*args, name=name, **kwargs)
        if len(args) > 1:
            args = (args[0], _numbers_of(weight), *args[2:])
        else:
            kwargs["initializer"] = _numbers_of(weight)
        variable = add_weight(*args, name=name, **kwargs)
        loaded[id(variable)] = str(name)
        return variable

    attributes = vars(instance)
    attributes["add_weight"] = add_loaded_weight
    try:
        yield loaded
    finally:
        del attributes["add_weight"]


def _numbers_of(weight: Weight) -> Callable[..., Any]:
    def initialiser(shape: Any, dtype: Any = None) -> Any:  # noqa: ARG001 - Keras's signature
        array = weight.numpy()
        if keras.config.backend() == "tensorflow":
            if str(array.dtype) == dtype:
                # The variable copies the array; a tensor in between would take time.
                return array
        elif array is weight.source:
            # The others let the variable and the array share memory.
            array = array.copy()
        return keras.ops.convert_to_tensor(array, dtype)

    return initialiser


def load_weights(
    operation: Operation, instance: Any, loaded: Mapping[int, str] = MappingProxyType({})
) -> None:
    """Give a built layer the numbers of an operation, and its state outside of weights.

    Args:
        operation: Operation that has the weights.
        instance: The built layer.
        loaded: Names of weights that have their numbers already, by the variable's `id`.

    Raises:
        ModelError: When the layer has other weights than the operation, or of other shapes, or
            its state cannot be copied.
    """
    variables = internals.own_weights(instance)
    if len(variables) != len(operation.weights):
        if operation.quantised is not None:
            raise ModelError(
                f"Layer '{operation.name}' ({operation.kind}) holds quantised layers, and Keras "
                "makes it from its config without them: use saikei.Dequantize() first, and "
                "quantise the result."
            )
        raise ModelError(
            f"Layer '{operation.name}' ({operation.kind}) has {len(operation.weights)} weights, "
            f"but made again from its config it has {len(variables)}. {_fix(operation)}."
        )
    for variable, (name, weight) in zip(
        variables, weights_as_held(operation, instance), strict=True
    ):
        if tuple(variable.shape) != weight.shape:
            raise ModelError(
                f"Weight '{name}' of layer '{operation.name}' ({operation.kind}) has shape "
                f"{weight.shape}, but its config asks for {tuple(variable.shape)}: the layer's "
                "rule and its config disagree."
            )
        if loaded.get(id(variable)) != name:
            variable.assign(weight.numpy())
    internals.use_assigned_statistics(instance)
    carry_state(operation.source, instance if operation.spectral is None else instance.layer)


def keep_preprocessing(operation: Operation, instance: Any) -> None:
    """Give a layer with new weights the state that comes from `adapt`, not from training."""
    if operation.kind == "Normalization":
        load_weights(operation, instance)
    carry_state(operation.source, instance)


def weights_as_held(operation: Operation, instance: Any) -> list[tuple[str, Weight]]:
    """The weights of an operation in the order in which a layer made of it has them.

    The order differs between a layer that is quantised from the start and one quantised later.
    """
    names = weight_names(instance, internals.own_weights(instance))
    if operation.quantised is None or set(names) != set(operation.weights):
        return list(operation.weights.items())
    return [(name, operation.weights[name]) for name in names]


def made_layer(graph: Graph, call: Call) -> Any:
    """The layer or operation of a call, built with its numbers, to be called on arrays.

    What no edit has changed is the model's own, where a call of it changes nothing in it: copies
    take time, and as much memory as the model.
    """
    operation = graph.operations[call.operation].bare()
    if _is_own(operation):
        return operation.source
    layer = instantiate(operation)
    if isinstance(layer, keras.Layer):
        args, kwargs = tree.map_structure(
            lambda leaf: _symbolic(graph, leaf) if isinstance(leaf, TensorRef) else leaf,
            (call.args, dict(call.kwargs)),
        )
        with cheap_initialisers(layer):
            layer(*args, **kwargs)
        load_weights(operation, layer)
    return layer


def _is_own(operation: Operation) -> bool:
    """Whether the object that an operation was read from computes the same, and keeps no state."""
    source, config = operation.source, operation.config
    if isinstance(source, keras.Layer):
        own = internals.own_weights(source)
        given = [weight.source for weight in operation.weights.values()]
        if type(source) not in _STATELESS or len(own) != len(given):
            return False
        if any(one is not other for one, other in zip(own, given, strict=True)):
            return False
        # A fused activation is taken off for a while, and a regularizer leaves its loss behind.
        if (config or {}).get("activation") not in (None, "linear"):
            return False
        if source.activity_regularizer is not None:
            return False
    elif not type(source).__module__.startswith("keras.src.ops"):
        return False
    try:
        return layer_config(source) == config
    except ValueError:
        # Arrays in a config cannot be compared so.
        return False


def _symbolic(graph: Graph, ref: TensorRef) -> keras.KerasTensor:
    spec = graph.spec(ref)
    return keras.KerasTensor(spec.shape, dtype=spec.dtype)


@contextmanager
def cheap_initialisers(layer: Any) -> Iterator[None]:
    """Build with zeros: drawing random numbers that are overwritten at once is wasted time."""
    zeros = keras.initializers.Zeros()
    changed: list[tuple[Any, str, Any]] = []
    for part in internals.flattened_layers(layer):
        for name, value in vars(part).items():
            if isinstance(value, keras.initializers.Initializer):
                changed.append((part, name, value))
    for part, name, _ in changed:
        setattr(part, name, zeros)
    try:
        yield
    finally:
        for part, name, value in changed:
            setattr(part, name, value)
