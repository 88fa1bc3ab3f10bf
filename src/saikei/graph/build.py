"""From a flat `Graph` back to an ordinary `keras.Model` with its own variables."""

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
from saikei.graph.at_hand import at_hand
from saikei.graph.describe import unused, weight_names
from saikei.graph.flat import Call, Graph, Operation, TensorRef, Weight
from saikei.graph.lineage import mark
from saikei.graph.per_step import Region, regions_of, wrapped_calls
from saikei.graph.read import read
from saikei.graph.state import build_as_saved, carry_state
from saikei.rules.wrapping import JOINED


def build(graph: Graph, name: str | None = None) -> keras.Model:
    """Build a Functional model from a graph: new layers, new variables, the graph's numbers.

    Args:
        graph: what to build.
        name: the model's name; the graph's own when not given.

    Returns:
        An uncompiled `keras.Model`.

    Raises:
        ModelError: when a layer cannot be made again from its config, or its weights do not
            have the shapes that the graph says.
    """
    with seeded(0):
        model = _Builder(graph, load=True).model(name or graph.name)
    mark(model, graph.marks)
    return model


def copy_model(model: keras.Model, name: str | None = None) -> keras.Model:
    """The same function with variables of its own, as a flat Functional model.

    Args:
        model: a built model; it is not changed.
        name: the copy's name; the model's own when not given.
    """
    return build(read(model), name)


def layers_of(graph: Graph, model: keras.Model) -> dict[str, Any]:
    """The layer of a built model for each operation, also of those that a `TimeDistributed` wraps.

    Args:
        graph: what the model was built from.
        model: as `build` has made it.
    """
    wrapped = [w.layer for w in model.layers if isinstance(w, keras.layers.TimeDistributed)]
    found = {layer.name: layer for layer in model.layers}
    while wrapped:
        layer = wrapped.pop()
        inner = layer.layers if isinstance(layer, keras.Model) else [layer]
        wrapped += [w.layer for w in inner if isinstance(w, keras.layers.TimeDistributed)]
        found.update({one.name: one for one in inner if one.name in graph.operations})
    return found


def fresh_model(model: keras.Model, seed: int) -> keras.Model:
    """The same architecture with newly initialised weights.

    Args:
        model: a built model; it is not changed.
        seed: of the initialisers. One that carries a seed of its own in its config keeps it.
    """
    with seeded(seed):
        return _Builder(read(model), load=False).model(model.name)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw the seeds that Keras makes for unseeded initialisers and dropouts from `seed`.

    Keras takes them from Python's global generator, whose state is put back afterwards.
    """
    state = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(state)


class _Builder:
    def __init__(self, graph: Graph, load: bool) -> None:
        self._graph = graph
        self._load = load
        self._made: dict[str, Any] = {}
        self._tensors: dict[TensorRef, Any] = {}
        regions = regions_of(graph.operations, graph.calls)
        # A tensor between the steps of a sequence is no output that a `TimeDistributed` gives.
        shown = any(regions[ref.call] for ref in graph.output_refs())
        self._regions = tuple(() for _ in regions) if shown else regions
        self._wrappers: dict[str, list[tuple[Any, Any]]] = {}
        self._wrapper_names: set[str] = set()

    def model(self, name: str) -> keras.Model:
        self._run_region(())
        inputs = tree.map_structure(self._tensors.__getitem__, self._graph.inputs)
        outputs = tree.map_structure(self._tensors.__getitem__, self._graph.outputs)
        try:
            return keras.Model(inputs, outputs, name=name)
        except ValueError as error:
            raise ModelError(
                f"Model '{name}' cannot be made: {in_one_line(error)}.{self._unread()}"
            ) from error

    def _run_region(self, region: tuple[int, ...]) -> None:
        """Make the calls outside of every `TimeDistributed`, or those in one."""
        for index, call in enumerate(self._graph.calls):
            if self._regions[index] != region or region[-1:] == (index,):
                continue
            kind = self._graph.operations[call.operation].kind
            ends = kind == JOINED and self._regions[call.inputs()[0].call] != region
            outputs = self._run_wrapped(call) if ends else self._run(call)
            for position, tensor in enumerate(tree.flatten(outputs)):
                self._tensors[TensorRef(index, position)] = tensor

    def _run_wrapped(self, call: Call) -> Any:
        """Call what lies between the two ends of a `TimeDistributed`, wrapped in one again."""
        result, whole = call.inputs()[:2]
        region = self._regions[result.call]
        if result.call == region[-1]:
            return self._tensors[whole]
        into = self._graph.calls[region[-1]]
        found = wrapped_calls(self._graph, self._regions, result)
        known = self._wrappers.setdefault(call.operation, [])
        wrapper = next((layer for calls, layer in known if calls == found.calls), None)
        if wrapper is None:
            wrapper = self._wrapper(call, region, result, found.alone)
            known.append((found.calls, wrapper))
        kwargs = self._with_tensors(dict(call.kwargs))
        return wrapper(self._tensors[into.inputs()[0]], **kwargs)

    def _wrapper(self, call: Call, region: Region, result: TensorRef, alone: str | None) -> Any:
        start = TensorRef(region[-1], 0)
        if start not in self._tensors:
            spec = self._graph.spec(start)
            self._tensors[start] = keras.Input(spec.shape[1:], dtype=spec.dtype)
            self._run_region(region)
        config = self._graph.operations[call.operation].config or {}
        inner = self._made[alone] if alone else None
        if inner is None:
            inner = keras.Model(self._tensors[start], self._tensors[result], name=config["inner"])
        name = config["wrapper"]["name"]
        # A layer that is wrapped alone goes by the wrapper's name, and may be called elsewhere too.
        beside = {
            other.operation
            for other, at in zip(self._graph.calls, self._regions, strict=True)
            if at == region[:-1] and self._graph.operations[other.operation].kind != JOINED
        }
        name = unused(name, beside | self._wrapper_names)
        self._wrapper_names.add(name)
        return keras.layers.TimeDistributed(inner, **{**config["wrapper"], "name": name})

    def _with_tensors(self, arguments: Any) -> Any:
        return tree.map_structure(
            lambda leaf: self._tensors[leaf] if isinstance(leaf, TensorRef) else leaf, arguments
        )

    def _unread(self) -> str:
        """Inputs that nothing reads, which Keras allows since version 3.14."""
        read_by = {ref for call in self._graph.calls for ref in call.inputs()}
        names = [
            f"'{self._graph.calls[ref.call].operation}'"
            for ref in self._graph.input_refs()
            if ref not in read_by
        ]
        if not names:
            return ""
        return (
            f" Nothing reads its input {', '.join(names)}, and Keras {keras.version()} makes no "
            "such models: use Keras 3.14 or later."
        )

    def _run(self, call: Call) -> Any:
        operation = self._graph.operations[call.operation]
        first = operation.name not in self._made
        if first:
            self._made[operation.name] = instantiate(operation)
        instance = self._made[operation.name]
        if isinstance(instance, keras.layers.InputLayer):
            return instance.output
        args, kwargs = self._with_tensors((call.args, dict(call.kwargs)))
        if not first:
            return instance(*args, **kwargs)
        if not self._load:
            outputs = instance(*args, **kwargs)
            _keep_preprocessing(operation, instance)
            return outputs
        with cheap_initialisers(instance), _preloaded(operation, instance) as loaded:
            outputs = self._call(operation, instance, args, kwargs)
        load_weights(operation, instance, loaded)
        return outputs

    @staticmethod
    def _call(operation: Operation, instance: Any, args: Any, kwargs: Any) -> Any:
        try:
            return instance(*args, **kwargs)
        except (ValueError, TypeError, RuntimeError) as error:
            raise ModelError(
                f"Layer '{operation.name}' ({operation.kind}) cannot be called again after the "
                f"change: {in_one_line(error)}. Exclude it, or add a rule for it."
            ) from error


def instantiate(operation: Operation) -> Any:
    """A new layer or operation, not yet built, from an operation of a graph.

    Raises:
        ModelError: when its class cannot make it from its config.
    """
    if operation.config is None:
        if operation.weights:
            raise ModelError(
                f"Layer '{operation.name}' ({operation.kind}) gives no config that it could be "
                f"made again from. {_fix(operation)}."
            )
        return internals.detached_copy(operation.source)
    # Classes take things out of their config; those of layers within it are the graph's too.
    config: dict[str, Any] = _copied(operation.config)
    if "name" in config:
        config["name"] = operation.name
    try:
        with at_hand(operation.source):
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
    """What helps where a layer is not made again from its config."""
    if type(operation.source).__module__.startswith("keras."):
        return (
            f"It is a layer of Keras {keras.version()}, so build the model with another layer in "
            "its place"
        )
    return "Fix its get_config() or from_config()"


@contextmanager
def _preloaded(operation: Operation, instance: Any) -> Iterator[dict[int, str]]:
    """Let the layer make its own variables with their final numbers.

    Keras would first make them with others, which is half of the time of a build. Variables
    that the layer does not make by `add_weight`, or in a layer within it, are loaded later.

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
                # The variable copies it; a tensor in between would only take time.
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
        operation: whose weights.
        instance: the layer.
        loaded: the names of weights that have their numbers already, by the variable's `id`.

    Raises:
        ModelError: when the layer has other weights than the operation, or of other shapes, or
            its state cannot be carried.
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


def _keep_preprocessing(operation: Operation, instance: Any) -> None:
    """Give a layer with fresh weights what was adapted to data, and not trained."""
    if operation.kind == "Normalization":
        load_weights(operation, instance)
    carry_state(operation.source, instance)


def weights_as_held(operation: Operation, instance: Any) -> list[tuple[str, Weight]]:
    """The weights of an operation in the order in which a layer made of it has them.

    It is another one where a layer is quantised from the beginning and not once it is built.

    Args:
        operation: whose weights.
        instance: the layer, built.
    """
    names = weight_names(instance, internals.own_weights(instance))
    if operation.quantised is None or set(names) != set(operation.weights):
        return list(operation.weights.items())
    return [(name, operation.weights[name]) for name in names]


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
