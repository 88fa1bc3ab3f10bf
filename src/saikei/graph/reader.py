"""Goes through a model, its nested models and traced layers, and records operations and calls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import keras
import numpy as np
from keras import tree

from saikei.graph import internals, own_functions
from saikei.graph.describe import layer_config, own_name
from saikei.graph.dimensions import Ones, symbolic_ones
from saikei.graph.flat import Operation, TensorRef
from saikei.graph.kinds import kind_of
from saikei.graph.nested import bind, mask_carrier, masks_given, masks_left
from saikei.graph.parameters import (
    parameter_layer,
    symbolic_constant,
    symbolic_one,
    symbolic_value,
)
from saikei.graph.per_step import Joined, Steps, a_step_of, ends_of, is_time_distributed
from saikei.graph.recorder import Recorder
from saikei.graph.retrace import (
    Step,
    Trace,
    ordered_steps,
    step_of,
    trace,
)
from saikei.graph.sizes import origin
from saikei.graph.untraceable import UntraceableError
from saikei.tensors import to_numpy

FIRST = TensorRef(0, 0)


@dataclass
class Level:
    """One model or layer that is being read.

    Args:
        prefix: Beginning of the names of its operations where their own are taken.
        training: The `training` argument of a surrounding call; `None` where none gives one.
        trace: The steps of a traced layer; `None` for a model, whose tensors hold their steps.
        outer: The level in which the layer is called, for a traced one.
        layer: The traced layer; `None` for models.
        fresh: Whether its operations were made just now, so that Keras numbered their names.
        start: The tensor that constants are computed from: the first input of the model, or of
            the steps that the level is called for.
        known: The tensors that have been recorded, by id.
        left: The masks that nested models leave on tensors for later calls; see `masks_left`.
    """

    prefix: str
    training: bool | None
    trace: Trace | None = None
    outer: Level | None = None
    layer: Any = None
    fresh: bool = False
    start: TensorRef = FIRST
    known: dict[int, TensorRef] = field(default_factory=dict)
    left: dict[tuple[int, int], Any] = field(default_factory=dict)

    def step(self, tensor: Any) -> Step | None:
        """The call that made a tensor."""
        return step_of(tensor) if self.trace is None else self.trace.steps.get(id(tensor))


class Reader:
    """Collects operations and calls while walking a model and what is nested in it."""

    def __init__(self, own: set[str], opaque: dict[int, str], model: Any) -> None:
        self._recorder = Recorder(own, opaque, internals.flattened_layers(model))
        self.operations, self.calls = self._recorder.operations, self._recorder.calls
        self.traced = False
        self.ends: dict[str, str] = {}
        self._parameters: dict[tuple[int, str, TensorRef], TensorRef] = {}
        self._ones_at: dict[TensorRef, TensorRef] = {}
        self._embeddings = internals.embeddings(model)
        self._held = {
            id(variable): (layer.name, own_name(attribute, variable))
            for layer in internals.flattened_layers(model)
            for attribute, variable in internals.held_weights(layer)
        }
        # Variables that a call uses itself: the layer, and the operation made for them.
        self._users: dict[int, tuple[Any, str, str]] = {}
        # Layers that are recorded without their activation, which follows them.
        self._parts: dict[int, tuple[Any, Any] | None] = {}
        # The two ends of each `TimeDistributed`.
        self._ends: dict[int, tuple[Steps, Joined]] = {}

    def add_input(self, level: Level, tensor: Any) -> TensorRef:
        """Record a model input as a call without arguments."""
        operation, _, _ = internals.producer(tensor)
        ref = self._recorder.record(operation, "", (), {}, [tensor])[0]
        level.known[id(tensor)] = ref
        return ref

    def walk(self, level: Level, outputs: list[Any]) -> list[TensorRef]:
        """Record every call behind `outputs` that the level does not know yet."""
        given = {} if level.trace is None else level.trace.stand_ins
        stop = level.known.keys() | given.keys()
        for step in ordered_steps(outputs, stop, level.step):
            if all(id(tensor) in level.known for tensor in step.outputs):
                # A mask that was left for an earlier call has been read from it.
                continue
            refs = self._visit(level, self._with_left_masks(level, step))
            self._note_end(step, refs)
            level.known.update({id(t): ref for t, ref in zip(step.outputs, refs, strict=True)})
        return [self._resolve(level, tensor) for tensor in outputs]

    def _note_end(self, step: Step, refs: list[TensorRef]) -> None:
        """Note the operation whose output is that of a layer or model that became several."""
        name = step.operation.name
        if len(refs) != 1 or refs[0].output or not isinstance(step.operation, keras.Layer):
            return
        last = self.calls[refs[0].call].operation
        if self.ends.setdefault(name, last) != last:
            # Two layers have that name, so it identifies none.
            self.ends[name] = name

    def _resolve(self, level: Level, tensor: Any) -> TensorRef:
        """The ref of a tensor, which is recorded now if it has not been needed before."""
        if id(tensor) not in level.known:
            original = None if level.trace is None else level.trace.stand_ins.get(id(tensor))
            if original is None:
                return self.walk(level, [tensor])[0]
            if isinstance(original, keras.Variable):
                ref = self._parameter(level, original, str(tensor.dtype))
            elif isinstance(original, np.ndarray):
                ref = self._constant(level, original)
            else:
                assert level.outer is not None
                ref = self._resolve(level.outer, original)
            level.known[id(tensor)] = ref
        return level.known[id(tensor)]

    def _visit(self, level: Level, step: Step) -> list[TensorRef]:
        operation = step.operation
        if isinstance(operation, Ones):
            return [self._ones(self._resolve(level, step.args[0]), operation)]
        if is_time_distributed(operation):
            return self._every_step(level, step)
        if id(operation) not in self._recorder.opaque:
            try:
                if internals.is_graph_model(operation):
                    return self._nested_model(level, step)
                if own_functions.is_traceable(operation):
                    return self._traced_layer(level, step)
                if (parts := self._apart(operation)) is not None:
                    return self._taken_apart(level, step, *parts)
            except UntraceableError as error:
                self._recorder.opaque[id(operation)] = str(error)
        args, kwargs = self._arguments(level, step)
        if level.training is not None and internals.takes_training(operation):
            # A nested model that is called with training=False keeps, say, its
            # BatchNormalization frozen; its layers must keep that when they are inlined.
            kwargs = {"training": level.training, **kwargs}
        return self._recorder.record(
            operation, level.prefix, args, kwargs, step.outputs, level.fresh
        )

    def _nested_model(self, level: Level, step: Step) -> list[TensorRef]:
        model = step.operation
        prefix, training = f"{level.prefix}{model.name}_", _training(level, step)
        inner = Level(prefix, training, start=level.start, left=masks_left(model))
        args, kwargs = self._arguments(level, step)
        bound = bind(model, args, kwargs)
        for position, (tensor, mask) in enumerate(masks_given(step)):
            if mask is not None:
                bound[position] = self._masked(level, tensor, mask, model.name)
        inner.known = {id(t): ref for t, ref in zip(model.inputs, bound, strict=True)}
        return self.walk(inner, list(model.outputs))

    def _masked(self, level: Level, tensor: Any, mask: Any, name: str) -> TensorRef:
        """A tensor with a mask that the call of a nested model gives as an argument."""
        dtype = str(tensor.dtype)
        carrier = mask_carrier(dtype, self._recorder.unused(f"{name}_mask"))
        made = keras.KerasTensor(tensor.shape, dtype=dtype)
        self._recorder.alive += [carrier, made]
        return self._every_step(level, Step(carrier, (tensor,), {"mask": mask}, [made]))[0]

    def _with_left_masks(self, level: Level, step: Step) -> Step:
        """The call on tensors that carry the masks which nested models have left on them."""
        made: dict[int, Any] = {}
        for tensor in step.inputs():
            key = (id(step.outputs[0]), id(tensor))
            own = step.kwargs.get("mask") is not None
            if key not in level.left or (own and not internals.is_graph_model(step.operation)):
                continue
            mask = level.left[key]
            if mask is None or len(tensor.shape) < 3:
                raise UntraceableError(
                    f"layer '{step.operation.name}' runs after a nested model that leaves a mask "
                    f"on its input '{tensor.name}'",
                    f"Call '{step.operation.name}' on a tensor of its own",
                )
            ref = self._masked(level, tensor, mask, step.operation.name)
            made[id(tensor)] = carried = keras.KerasTensor(tensor.shape, dtype=str(tensor.dtype))
            internals.set_mask(carried, mask)
            level.known[id(carried)] = ref
            self._recorder.alive.append(carried)
        if not made:
            return step
        args, kwargs = tree.map_structure(
            lambda leaf: made.get(id(leaf), leaf), (step.args, dict(step.kwargs))
        )
        return replace(step, args=args, kwargs=kwargs)

    def _traced_layer(self, level: Level, step: Step) -> list[TensorRef]:
        layer = step.operation
        # A functional model hands its own mode to every layer, whatever the call was recorded
        # with: Keras records the default of `call` too, or not, depending on the inputs' dtype.
        binding = None if level.trace is None else step.kwargs.get("training")
        traced = trace(layer, step.args, {**step.kwargs, "training": binding})
        outputs = tree.flatten(traced.outputs)
        if not _same_shapes(step.outputs, outputs):
            raise UntraceableError("traced, its outputs have other shapes")
        self.traced = True
        self._recorder.alive.append(traced)
        prefix = f"{level.prefix}{layer.name}_"
        training = _training(level, step)
        inner = Level(prefix, training, traced, level, layer, fresh=True, start=level.start)
        return self.walk(inner, outputs)

    def _apart(self, layer: Any) -> tuple[Any, Any] | None:
        if id(layer) not in self._parts:
            self._parts[id(layer)] = parts = own_functions.apart(layer)
            self._recorder.layers.update(() if parts is None else map(id, parts))
        return self._parts[id(layer)]

    def _taken_apart(self, level: Level, step: Step, bare: Any, function: Any) -> list[TensorRef]:
        """A layer, and behind it the activation of the process's own that it applies last."""
        (output,) = step.outputs
        between = keras.KerasTensor(output.shape, dtype=bare.compute_dtype)
        applied = Step(function, (between,), {}, step.outputs)
        self._recorder.alive.append(between)
        without = replace(step, operation=bare, outputs=[between])
        (level.known[id(between)],) = self._visit(level, without)
        self.traced = True
        if isinstance(function, own_functions.Applied):
            return self._traced_layer(level, applied)
        return self._visit(level, applied)

    def _every_step(self, level: Level, step: Step) -> list[TensorRef]:
        """What a `TimeDistributed` wraps, between the two ends of its steps."""
        wrapper = step.operation
        args, kwargs = self._arguments(level, step)
        whole = args[0] if args else kwargs["inputs"]
        given = {key: value for key, value in kwargs.items() if key != "inputs"}
        masks = {key: value for key, value in given.items() if key == "mask"}
        if not level.prefix:
            # What is wrapped may go by the wrapper's name, which has no call of its own.
            self._recorder.own.discard(wrapper.name)
        if id(wrapper) not in self._ends:
            name = self._recorder.unused(f"{wrapper.name}_steps")
            self._ends[id(wrapper)] = ends_of(wrapper, name)
        into, out = self._ends[id(wrapper)]
        layer, prefix = wrapper.layer, f"{level.prefix}{wrapper.name}_"
        composite = internals.is_graph_model(layer) or own_functions.is_traceable(layer)
        if not composite and layer.name not in self._recorder.own:
            prefix = level.prefix
            name = self._recorder.wrapped_names.get(id(wrapper), wrapper.name)
            for part in (layer, *(self._apart(layer) or ())[:1]):
                self._recorder.wrapped_names.setdefault(id(part), name)
        one, made = (a_step_of(tensor) for tensor in (step.inputs()[0], step.outputs[0]))
        self._recorder.alive.append((one, made))
        start = self._recorder.record(into, prefix, (whole,), masks, [one])[0]
        inner = Level(prefix, _training(level, step), start=start, known={id(one): start})
        refs = self._visit(inner, Step(layer, (one,), {}, [made]))
        return self._recorder.record(out, level.prefix, ([*refs, whole],), given, step.outputs)

    def _arguments(self, level: Level, step: Step) -> tuple[Any, dict[str, Any]]:
        """A step's arguments with refs in the place of tensors and of variables."""
        masks = self._explicit_masks(step) if self.traced or level.trace is not None else {}

        def ref(leaf: Any) -> Any:
            if isinstance(leaf, keras.KerasTensor):
                return self._resolve(level, leaf)
            if isinstance(leaf, keras.Variable):
                return self._parameter(level, leaf, str(leaf.dtype))
            return to_numpy(leaf) if keras.ops.is_tensor(leaf) else leaf

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

    def _parameter(self, level: Level, variable: Any, dtype: str) -> TensorRef:
        """The value of a variable that a `call` uses itself."""
        key = (id(variable), dtype, level.start)
        if key not in self._parameters:
            table = self._embeddings.get(id(variable))
            made = (
                self._parameter_operation(level, variable, dtype)
                if table is None
                else self._whole_table(level, table)
            )
            self._parameters[key] = made
        return self._parameters[key]

    def _parameter_operation(self, level: Level, variable: Any, dtype: str) -> TensorRef:
        if id(variable) not in self._users:
            name = self._recorder.unused(self._parameter_name(level, variable))
            layer, weight = parameter_layer(variable, dtype, name)
            self._users[id(variable)] = (level.layer, name, dtype)
            self.operations[name] = Operation(
                name, kind_of(layer), layer_config(layer), {"kernel": weight}, layer
            )
        _, name, known = self._users[id(variable)]
        if known != dtype:
            raise UntraceableError(f"it uses the weight '{variable.name}' in two dtypes")
        one = self._single_one(level)
        stand_in, value = symbolic_value(variable, dtype)
        ref = self._recorder.call(name, (one,), {}, [stand_in])[0]
        return self._operations_between(stand_in, ref, value)

    def _parameter_name(self, level: Level, variable: Any) -> str:
        """`"block_gamma"` for the weight `gamma` of the layer `block`."""
        held = self._held.get(id(variable))
        owner, role = held or (level.layer.name, str(variable.name))
        return f"{owner}_{role}"

    def _whole_table(self, level: Level, layer: Any) -> TensorRef:
        """An embedding's weight: what it gives for every index in order."""
        indices = self._constant(level, np.arange(layer.input_dim, dtype="int32"))
        table = keras.KerasTensor((layer.input_dim, layer.output_dim), dtype=layer.compute_dtype)
        return self._recorder.record(layer, level.prefix, (indices,), {}, [table])[0]

    def _constant(self, level: Level, array: Any) -> TensorRef:
        """An array that a layer is called on: a layer's inputs have to be symbolic."""
        stand_in, value = symbolic_constant(array)
        return self._operations_between(stand_in, self._single_one(level), value)

    def settle(self) -> None:
        """Keep whole the layers that use a weight which another layer of the graph holds.

        Two layers cannot hold one variable once they are built again.
        """
        for name, operation in self.operations.items():
            for weight in operation.weights.values():
                user, own, _ = self._users.get(weight.key, (None, name, ""))
                if own == name:
                    continue
                reason = f"it uses a weight of layer '{name}' itself"
                if user is None:
                    raise UntraceableError(reason)
                self._recorder.opaque[id(user)] = reason

    def _ones(self, ref: TensorRef, ones: Ones) -> TensorRef:
        """As many ones as an axis is long, from the earliest tensor that has that axis."""
        ref = origin(self.operations, self.calls, ref, ones.axis)
        shape = self.calls[ref.call].outputs[ref.output].shape
        stand_in, value = symbolic_ones(shape, ones.axis, ones.dtype)
        return self._operations_between(stand_in, ref, value)

    def _single_one(self, level: Level) -> TensorRef:
        first = level.start
        if first not in self._ones_at:
            stand_in, one = symbolic_one(self.calls[first.call].outputs[first.output])
            self._ones_at[first] = self._operations_between(stand_in, first, one)
        return self._ones_at[first]

    def _operations_between(self, stand_in: Any, ref: TensorRef, value: Any) -> TensorRef:
        inner = Level("", None, fresh=True)
        inner.known[id(stand_in)] = ref
        self._recorder.alive.append((stand_in, value))
        return self.walk(inner, [value])[0]


def _same_shapes(declared: Sequence[Any], traced: Sequence[Any]) -> bool:
    """Whether tracing gives the shapes that the layer declares, where it declares sizes at all."""
    return len(declared) == len(traced) and all(
        len(one.shape) == len(other.shape)
        and all(a in (None, b) for a, b in zip(one.shape, other.shape, strict=True))
        for one, other in zip(declared, traced, strict=True)
    )


def _training(level: Level, step: Step) -> bool | None:
    given = step.kwargs.get("training")
    return level.training if given is None else given
