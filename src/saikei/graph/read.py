"""From a `keras.Model` to a flat `Graph`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
from keras import tree

from saikei.errors import ModelError
from saikei.graph import internals
from saikei.graph.dimensions import Ones, symbolic_ones
from saikei.graph.flat import Call, Graph, Operation, TensorRef, TensorSpec, Weight
from saikei.graph.parameters import (
    parameter_layer,
    symbolic_constant,
    symbolic_one,
    symbolic_value,
)
from saikei.graph.retrace import (
    Step,
    Trace,
    UntraceableError,
    ordered_steps,
    step_key,
    step_of,
    trace,
)
from saikei.graph.sizes import origin
from saikei.graph.subclassed import check_weights, traced_model, untraceable_model
from saikei.rules import find_rule


def read(model: keras.Model) -> Graph:
    """Read a model; nested models and composite layers are inlined.

    A subclassed model, and a layer with a `call` of its own that no rule is known for, are run
    once on symbolic tensors to see which layers and operations they call.

    Args:
        model: a built model. It is not changed.

    Returns:
        The flat graph. Its weights refer to the model's variables; nothing is copied.

    Raises:
        ModelError: when the object is no model, is not built, or cannot be traced.
    """
    _check_readable(model)
    opaque: dict[int, str] = {}
    while True:
        known = len(opaque)
        graph = _read(model, opaque)
        if len(opaque) == known:
            return graph
        # A layer that could not be traced in one of its calls is kept whole in all of them.


def _read(model: Any, opaque: dict[int, str]) -> Graph:
    already = len(opaque)
    if internals.is_graph_model(model):
        inputs_struct, outputs_struct = internals.structures(model)
        inputs, outputs = list(model.inputs), list(model.outputs)
        steps, own = None, internals.operation_names(model)
    else:
        inputs_struct, traced = traced_model(model)
        inputs = tree.flatten(inputs_struct)
        outputs_struct, outputs = traced.outputs, tree.flatten(traced.outputs)
        steps, own = traced, {layer.name for layer in internals.flattened_layers(model)}
    reader = _Reader(own, opaque, model)
    level = _Level("", None)
    bound = [reader.add_input(level, tensor) for tensor in inputs]
    if steps is not None:
        level = _Level("", None, steps, level, fresh=True)
    try:
        refs = reader.walk(level, outputs)
        reader.settle()
    except UntraceableError as error:
        raise untraceable_model(model, str(error)) from error
    graph = Graph(
        name=model.name,
        operations=reader.operations,
        calls=tuple(reader.calls),
        inputs=tree.pack_sequence_as(inputs_struct, bound),
        outputs=tree.pack_sequence_as(outputs_struct, refs),
    )
    if len(opaque) == already and (reader.traced or steps is not None):
        check_weights(model, graph)
    return graph


def _check_readable(model: Any) -> None:
    if not isinstance(model, keras.Model):
        raise ModelError(f"Expected a keras.Model, got {type(model).__name__}: hand in a model.")
    if isinstance(model, keras.Sequential) and not internals.is_graph_model(model):
        raise ModelError(
            f"Model '{model.name}' is not built, so its shapes are unknown: "
            "call model.build(input_shape) or add a keras.Input first."
        )


@dataclass
class _Level:
    """One model or layer that is being walked.

    Args:
        prefix: of the names of its operations where they are taken.
        training: what a surrounding call fixes `training` to.
        trace: where its steps stand; `None` for a model whose tensors know their steps.
        outer: the level in which the layer is called, for a traced one.
        layer: the traced layer; `None` for models.
        fresh: whether its operations were made just now, so that Keras numbered their names.
        known: the tensors that have been recorded, by id.
    """

    prefix: str
    training: bool | None
    trace: Trace | None = None
    outer: _Level | None = None
    layer: Any = None
    fresh: bool = False
    known: dict[int, TensorRef] = field(default_factory=dict)

    def step(self, tensor: Any) -> Step | None:
        """The call that made a tensor."""
        return step_of(tensor) if self.trace is None else self.trace.steps.get(id(tensor))


class _Reader:
    """Collects operations and calls while walking a model and what is nested in it."""

    def __init__(self, own: set[str], opaque: dict[int, str], model: Any) -> None:
        # The outer model's layers keep their names; nested ones give way.
        self._own = own
        self._opaque = opaque
        self.operations: dict[str, Operation] = {}
        self.calls: list[Call] = []
        self.traced = False
        self._names: dict[int, str] = {}
        self._parameters: dict[tuple[int, str], TensorRef] = {}
        self._one: TensorRef | None = None
        # Blocks work out the same masks and positions each for itself; once is enough.
        self._recorded: dict[Any, list[TensorRef]] = {}
        self._layers = {id(layer) for layer in internals.flattened_layers(model)}
        self._embeddings = internals.embeddings(model)
        # Variables that a call uses itself: who does, and the operation made for them.
        self._users: dict[int, tuple[Any, str]] = {}
        # Operations are known by id, so they have to live as long as the reader.
        self._alive: list[Any] = []

    def add_input(self, level: _Level, tensor: Any) -> TensorRef:
        """Record a model input as a call without arguments."""
        operation, _, _ = internals.producer(tensor)
        ref = self._record(operation, "", (), {}, [tensor])[0]
        level.known[id(tensor)] = ref
        return ref

    def walk(self, level: _Level, outputs: list[Any]) -> list[TensorRef]:
        """Record every call behind `outputs` that the level does not know yet."""
        given = {} if level.trace is None else level.trace.stand_ins
        stop = level.known.keys() | given.keys()
        for step in ordered_steps(outputs, stop, level.step):
            refs = self._visit(level, step)
            level.known.update({id(t): ref for t, ref in zip(step.outputs, refs, strict=True)})
        return [self._resolve(level, tensor) for tensor in outputs]

    def _resolve(self, level: _Level, tensor: Any) -> TensorRef:
        """The ref of a tensor, which is recorded now if it has not been needed before."""
        if id(tensor) not in level.known:
            original = None if level.trace is None else level.trace.stand_ins.get(id(tensor))
            if original is None:
                return self.walk(level, [tensor])[0]
            if isinstance(original, keras.Variable):
                ref = self._parameter(level, original, str(tensor.dtype))
            elif isinstance(original, np.ndarray):
                ref = self._constant(original)
            else:
                assert level.outer is not None
                ref = self._resolve(level.outer, original)
            level.known[id(tensor)] = ref
        return level.known[id(tensor)]

    def _visit(self, level: _Level, step: Step) -> list[TensorRef]:
        operation = step.operation
        if isinstance(operation, Ones):
            return [self._ones(self._resolve(level, step.args[0]), operation)]
        if internals.is_graph_model(operation):
            return self._nested_model(level, step)
        if id(operation) not in self._opaque and _is_traceable(operation):
            try:
                return self._traced_layer(level, step)
            except UntraceableError as error:
                self._opaque[id(operation)] = str(error)
        args, kwargs = self._arguments(level, step)
        if level.training is not None and internals.takes_training(operation):
            # A nested model that is called with training=False keeps, say, its
            # BatchNormalization frozen; its layers must keep that when they are inlined.
            kwargs = {"training": level.training, **kwargs}
        return self._record(operation, level.prefix, args, kwargs, step.outputs, level.fresh)

    def _nested_model(self, level: _Level, step: Step) -> list[TensorRef]:
        model = step.operation
        inner = _Level(f"{level.prefix}{model.name}_", _training(level, step))
        args, kwargs = self._arguments(level, step)
        bound = _bind(model, args, kwargs)
        inner.known = {id(t): ref for t, ref in zip(model.inputs, bound, strict=True)}
        return self.walk(inner, list(model.outputs))

    def _traced_layer(self, level: _Level, step: Step) -> list[TensorRef]:
        layer = step.operation
        training = _training(level, step)
        kwargs = step.kwargs if training is None else {**step.kwargs, "training": training}
        traced = trace(layer, step.args, kwargs)
        outputs = tree.flatten(traced.outputs)
        if [tuple(t.shape) for t in outputs] != [tuple(t.shape) for t in step.outputs]:
            raise UntraceableError("traced, its outputs have other shapes")
        self.traced = True
        self._alive.append(traced)
        inner = _Level(f"{level.prefix}{layer.name}_", training, traced, level, layer, fresh=True)
        return self.walk(inner, outputs)

    def _arguments(self, level: _Level, step: Step) -> tuple[Any, dict[str, Any]]:
        """A step's arguments with refs in the place of tensors and of variables."""
        masks = self._explicit_masks(step) if self.traced or level.trace is not None else {}

        def ref(leaf: Any) -> Any:
            if isinstance(leaf, keras.KerasTensor):
                return self._resolve(level, leaf)
            if isinstance(leaf, keras.Variable):
                return self._parameter(level, leaf, str(leaf.dtype))
            return keras.ops.convert_to_numpy(leaf) if keras.ops.is_tensor(leaf) else leaf

        args, kwargs = tree.map_structure(ref, (step.args, {**step.kwargs, **masks}))
        return args, kwargs

    @staticmethod
    def _explicit_masks(step: Step) -> dict[str, Any]:
        """Masks that Keras would find on tensors; operations in between drop them."""
        if not isinstance(step.operation, keras.Layer):
            return {}
        arguments = internals.call_arguments(step.operation, step.args, step.kwargs)
        tensors = {k: v for k, v in arguments.items() if isinstance(v, keras.KerasTensor)}
        masks = {}
        for name, tensor in tensors.items():
            argument = "mask" if len(tensors) == 1 else f"{name}_mask"
            mask = internals.mask_of(tensor)
            if mask is not None and argument in arguments and arguments[argument] is None:
                masks[argument] = mask
        return masks

    def _parameter(self, level: _Level, variable: Any, dtype: str) -> TensorRef:
        """The value of a variable that a `call` uses itself."""
        key = (id(variable), dtype)
        if key not in self._parameters:
            table = self._embeddings.get(id(variable))
            made = (
                self._parameter_operation(level, variable, dtype)
                if table is None
                else self._whole_table(level, table)
            )
            self._parameters[key] = made
        return self._parameters[key]

    def _parameter_operation(self, level: _Level, variable: Any, dtype: str) -> TensorRef:
        if id(variable) in self._users:
            raise UntraceableError(f"it uses the weight '{variable.path}' in two dtypes")
        name = _unused(_parameter_name(variable), self._own.union(self.operations))
        layer, weight = parameter_layer(variable, dtype, name)
        self._users[id(variable)] = (level.layer, name)
        self.operations[name] = Operation(
            name, kind_of(layer), layer_config(layer), {"kernel": weight}, layer
        )
        one = self._single_one()
        stand_in, value = symbolic_value(variable, dtype)
        self.calls.append(Call(name, (one,), {}, (_spec(stand_in),)))
        return self._operations_between(stand_in, TensorRef(len(self.calls) - 1, 0), value)

    def _whole_table(self, level: _Level, layer: Any) -> TensorRef:
        """An embedding's weight: what it gives for every index in order."""
        indices = self._constant(np.arange(layer.input_dim, dtype="int32"))
        table = keras.KerasTensor((layer.input_dim, layer.output_dim), dtype=layer.compute_dtype)
        return self._record(layer, level.prefix, (indices,), {}, [table])[0]

    def _constant(self, array: Any) -> TensorRef:
        """An array that a layer is called on: a layer's inputs have to be symbolic."""
        stand_in, value = symbolic_constant(array)
        return self._operations_between(stand_in, self._single_one(), value)

    def settle(self) -> None:
        """Keep whole the layers that use a weight which another layer of the graph holds.

        Two layers cannot hold one variable once they are built again.
        """
        for name, operation in self.operations.items():
            for weight in operation.weights.values():
                user, own = self._users.get(weight.key, (None, name))
                if own == name:
                    continue
                reason = f"it uses a weight of layer '{name}' itself"
                if user is None:
                    raise UntraceableError(reason)
                self._opaque[id(user)] = reason

    def _ones(self, ref: TensorRef, ones: Ones) -> TensorRef:
        """As many ones as an axis is long, from the earliest tensor that has that axis."""
        ref = origin(self.operations, self.calls, ref, ones.axis)
        shape = self.calls[ref.call].outputs[ref.output].shape
        stand_in, value = symbolic_ones(shape, ones.axis, ones.dtype)
        return self._operations_between(stand_in, ref, value)

    def _single_one(self) -> TensorRef:
        if self._one is None:
            first = TensorRef(0, 0)
            stand_in, one = symbolic_one(self.calls[0].outputs[0])
            self._one = self._operations_between(stand_in, first, one)
        return self._one

    def _operations_between(self, stand_in: Any, ref: TensorRef, value: Any) -> TensorRef:
        inner = _Level("", None, fresh=True)
        inner.known[id(stand_in)] = ref
        self._alive.append((stand_in, value))
        return self.walk(inner, [value])[0]

    def _record(
        self,
        operation: Any,
        prefix: str,
        args: Any,
        kwargs: Any,
        outputs: list[Any],
        fresh: bool = False,
    ) -> list[TensorRef]:
        key = step_key(operation, args, kwargs) if fresh else None
        if key is not None and key in self._recorded:
            return self._recorded[key]
        name = self._add_operation(operation, prefix, fresh)
        specs = tuple(_spec(tensor) for tensor in outputs)
        self.calls.append(Call(name, tuple(args), dict(kwargs), specs))
        refs = [TensorRef(len(self.calls) - 1, i) for i in range(len(specs))]
        if key is not None:
            self._recorded[key] = refs
        return refs

    def _add_operation(self, operation: Any, prefix: str, fresh: bool) -> str:
        if id(operation) in self._names:
            return self._names[id(operation)]
        name: str = operation.name
        if fresh and id(operation) not in self._layers:
            # Made in the call. Keras numbers them through the process; names have to repeat.
            name = _unused(
                f"{prefix}{name.rstrip('_0123456789')}", self._own.union(self.operations)
            )
        elif name in self.operations or (prefix and name in self._own):
            name = _unused(f"{prefix}{name}", self._own.union(self.operations))
        self._names[id(operation)] = name
        self._alive.append(operation)
        self.operations[name] = Operation(
            name=name,
            kind=kind_of(operation),
            config=layer_config(operation),
            weights=_weights(operation),
            source=operation,
            untraced=self._opaque.get(id(operation)),
        )
        return name


def _spec(tensor: Any) -> TensorSpec:
    return TensorSpec(tuple(tensor.shape), str(tensor.dtype))


def _is_traceable(operation: Any) -> bool:
    return internals.overrides_call(operation) and find_rule(kind_of(operation)) is None


def _training(level: _Level, step: Step) -> bool | None:
    given = step.kwargs.get("training")
    return level.training if given is None else given


def _parameter_name(variable: Any) -> str:
    """`"block_gamma"` for the variable `"model/block/gamma"`."""
    return "_".join(str(variable.path).split("/")[-2:])


def kind_of(operation: Any) -> str:
    """The name under which rules know the class of a layer or operation."""
    cls = type(operation)
    if not cls.__module__.startswith("keras."):
        return f"{cls.__module__}.{cls.__qualname__}"
    name: str = cls.__name__
    return name if isinstance(operation, keras.Layer) else f"ops.{name}"


def _unused(name: str, taken: set[str]) -> str:
    candidate, number = name, 0
    while candidate in taken:
        number += 1
        candidate = f"{name}_{number}"
    return candidate


def layer_config(operation: Any) -> dict[str, Any] | None:
    """What the class's `from_config` takes; `None` where it has none."""
    try:
        config = dict(operation.get_config())
    except (NotImplementedError, AttributeError, KeyError, TypeError, ValueError):
        # keras.Operation raises the first where constructor arguments cannot be serialised; the
        # others come from classes whose get_config() is wrong.
        return None
    if "data_format" in config and config["data_format"] is None:
        config["data_format"] = keras.config.image_data_format()
    return {key: _unbuilt(value) for key, value in config.items()}


def _unbuilt(config: Any) -> Any:
    """The config of a layer within a layer without the shapes that it was built for.

    They would be the old ones once a layer before it is cut.
    """
    if not isinstance(config, dict) or "class_name" not in config:
        return config
    return {key: _unbuilt(value) for key, value in config.items() if key != "build_config"}


def _weights(operation: Any) -> dict[str, Weight]:
    weights: dict[str, Weight] = {}
    for variable in internals.own_weights(operation):
        name = _weight_name(operation.name, variable.path)
        base, number = name, 0
        while name in weights:
            number += 1
            name = f"{base}#{number}"
        weights[name] = Weight(
            id(variable), tuple(variable.shape), variable, bool(variable.trainable)
        )
    return weights


def _weight_name(layer: str, path: str) -> str:
    """`"kernel"` for `"outer/conv/kernel"` of the layer `conv`."""
    parts = path.split("/")
    inner = parts[parts.index(layer) + 1 :] if layer in parts else parts[-1:]
    return "/".join(inner) or path


def _bind(model: Any, args: Any, kwargs: Any) -> list[TensorRef]:
    """The refs handed to a nested model, in the order of its own inputs."""
    given = args[0] if args else kwargs.get("inputs")
    if isinstance(given, dict):
        struct, _ = internals.structures(model)
        if not isinstance(struct, dict):
            return [given[tensor.name] for tensor in model.inputs]
    return list(tree.flatten(given))
