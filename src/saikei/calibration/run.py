"""Run a graph call by call on calibration inputs, and keep only the tensors still needed."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeAlias

import keras
import numpy as np
from keras import tree
from numpy.typing import NDArray

from saikei.calibration.direct import Direct, direct
from saikei.graph import Call, Graph, Operation, TensorRef, TensorSpec
from saikei.graph.instantiate import made_layer
from saikei.graph.internals import mask_of, set_mask, takes_training
from saikei.tensors import to_floats, to_numpy

# Samples that a layer computes at once: as many as have so many bytes, within limits.
BATCH_BYTES, FEWEST, MOST = 2**23, 16, 512
Array: TypeAlias = NDArray[Any]


@dataclass(frozen=True)
class Value:
    """A tensor of all samples.

    Args:
        array: One sample a row.
        mask: The steps that count, booleans; `None` where no layer attached a mask.
    """

    array: Array
    mask: Array | None = None

    def rows(self, rows: slice) -> Value:
        """Some of the samples."""
        return Value(self.array[rows], None if self.mask is None else self.mask[rows])

    @classmethod
    def joined(cls, values: Sequence[Value]) -> Value:
        """The samples of several parts, one part after the other."""
        if len(values) == 1:
            return values[0]
        masks = [value.mask for value in values]
        return cls(
            np.concatenate([value.array for value in values]),
            None if masks[0] is None else np.concatenate([m for m in masks if m is not None]),
        )


@dataclass(frozen=True)
class Outcome:
    """The outputs of a call.

    Args:
        before: Its output tensors before the fused activation.
        after: Its output tensors.
    """

    before: tuple[Value, ...]
    after: tuple[Value, ...]


class Layers:
    """Layers of a graph, made once for the runs of all graphs that have them unchanged.

    Args:
        graph: The graph whose layers are kept.
    """

    def __init__(self, graph: Graph) -> None:
        self._operations = graph.operations
        self.made: dict[str, Any] = {}
        self.functions: dict[str, Direct | None] = {}

    def holds(self, operation: Operation) -> bool:
        """Whether an operation is one of the graph, with the same weights and settings."""
        own = self._operations.get(operation.name)
        return own is not None and same_operation(operation, own)

    def replace(self, operation: Operation) -> None:
        """Take another operation of the same name as that of the graph."""
        self._operations = {**self._operations, operation.name: operation}
        self.release([operation.name])

    def release(self, names: Iterable[str]) -> None:
        """Forget layers that are not called again, and the memory of their weights."""
        for name in names:
            self.made.pop(name, None)
            self.functions.pop(name, None)


class Run:
    """Values of a graph's tensors, worked out call by call in order.

    Args:
        graph: The graph; its operations may be replaced between calls, see `replace`.
        inputs: Nested as the graph nests its inputs.
        also: Tensors that are kept to the end.
        layers: Layers to share with the runs of other graphs; `None` to share none.
    """

    def __init__(
        self,
        graph: Graph,
        inputs: Any,
        also: Iterable[TensorRef] = (),
        layers: Layers | None = None,
    ) -> None:
        self.graph = graph
        self._instances: dict[str, Any] = {}
        self._functions: dict[str, Direct | None] = {}
        self._layers = layers
        self._inputs = dict(zip(graph.input_refs(), tree.flatten(inputs), strict=True))
        self.samples = len(next(iter(self._inputs.values())))
        self._values: dict[TensorRef, Value] = {}
        self._readers = Counter(ref for call in graph.calls for ref in call.inputs())
        self._readers.update(also)
        # The call that is next.
        self.at = 0

    @classmethod
    def resumed(
        cls,
        graph: Graph,
        inputs: Any,
        values: Mapping[TensorRef, Value],
        at: int,
        also: Iterable[TensorRef] = (),
        layers: Layers | None = None,
    ) -> Run:
        """A run that goes on from a call.

        Args:
            graph: As for a new run.
            inputs: As for a new run.
            values: What earlier calls gave, of all that is read from there on.
            at: The call that is next.
            also: As for a new run.
            layers: As for a new run.
        """
        run = cls(graph, inputs, layers=layers)
        run.at = at
        run._readers = Counter(ref for call in graph.calls[at:] for ref in call.inputs())
        run._readers.update(also)
        run._values = {ref: values[ref] for ref in run._readers if ref.call < at}
        return run

    def values(self) -> dict[TensorRef, Value]:
        """The tensors that calls which are still to come read, or that are kept to the end."""
        return dict(self._values)

    def fork(self, graph: Graph, at: int, rows: slice) -> Run | None:
        """A run of another graph from the call on that is next, on some of the rows.

        Args:
            graph: A graph whose calls before `at` are those of this run's graph.
            at: The call that is next in both.
            rows: The rows of the samples.

        Returns:
            The run; `None` where the graph reads a tensor that is not kept any more.
        """
        given = {self.graph.calls[r.call].operation: a for r, a in self._inputs.items()}
        names = [graph.calls[ref.call].operation for ref in graph.input_refs()]
        other = Run(graph, [given[name][rows] for name in names], layers=self._layers)
        refs = [ref for call in graph.calls[at:] for ref in call.inputs()]
        other._readers = Counter(refs + graph.output_refs())
        for ref in other._readers:
            if ref.call >= at:
                continue
            if ref not in self._values:
                return None
            value = self._values[ref]
            if len(value.array) != self.samples:
                return None
            mask = None if value.mask is None else value.mask[rows]
            other._values[ref] = Value(value.array[rows], mask)
        return other

    def replace(self, operation: Operation) -> None:
        """Replace an operation by one of the same name; calls that ran already stay."""
        self.graph = self.graph.with_operations({operation.name: operation})
        self._instances.pop(operation.name, None)
        self._functions.pop(operation.name, None)

    def step(self, index: int) -> Outcome:
        """Run the next call, keep its outputs, and drop what no later call reads."""
        outcome = self._outcome(index, self._values)
        self.put(index, outcome.after)
        return outcome

    def advance(self, index: int) -> None:
        """Run the next call as `step` does; what it gives before its activation is not needed."""
        self.put(index, self._outcome(index, self._values, before=False).after)

    def outputs(self, start: int) -> list[Array]:
        """Run all calls from one on, which is the next, and give the graph's outputs."""
        found = self.tensors(range(start, len(self.graph.calls)), self.graph.output_refs())
        return [to_floats(array) for array in found]

    def tensors(self, calls: range, refs: Sequence[TensorRef]) -> list[Array]:
        """Run calls, of which the first one is next, and give some tensors that are then there.

        The samples go through all calls a few at a time, and their tensors stay with the backend.
        """
        size = self._rows_at_once(calls)
        parts: list[list[Array]] = []
        for begin in range(0, self.samples, size):
            found = self._through(calls, refs, slice(begin, min(begin + size, self.samples)))
            if found is None:
                break
            parts.append(found)
        else:
            return [np.concatenate(each) for each in zip(*parts, strict=True)]
        for index in calls:
            self.advance(index)
        return [self.value(ref).array for ref in refs]

    def _rows_at_once(self, calls: range) -> int:
        tensors = [spec for index in calls for spec in self.graph.calls[index].outputs]
        if any(None in spec.shape[1:] for spec in tensors):
            return FEWEST
        largest = max((spec.bytes_per_sample() for spec in tensors), default=1)
        return min(max(BATCH_BYTES // max(largest, 1), FEWEST), MOST)

    def _through(self, calls: range, refs: Sequence[TensorRef], rows: slice) -> list[Array] | None:
        """Tensors of some samples; `None` where a tensor has other rows than the samples."""
        if any(len(value.array) != self.samples for value in self._values.values()):
            return None
        alive = {ref: _tensor(value, rows) for ref, value in self._values.items()}
        readers = Counter(self._readers)
        for index in calls:
            for position, tensor in enumerate(self._tensors(index, alive, rows)):
                if tuple(tensor.shape)[:1] != (rows.stop - rows.start,):
                    return None
                if readers[TensorRef(index, position)]:
                    alive[TensorRef(index, position)] = tensor
            for ref in self.graph.calls[index].inputs():
                readers[ref] -= 1
                if not readers[ref]:
                    alive.pop(ref, None)
        return [to_numpy(alive[ref]) for ref in refs]

    def _tensors(self, index: int, alive: Mapping[TensorRef, Any], rows: slice) -> list[Any]:
        call = self.graph.calls[index]
        operation = self.graph.operations[call.operation]
        if operation.kind == "InputLayer":
            return [_tensor(Value(np.asarray(self._inputs[TensorRef(index, 0)])), rows)]
        given = [alive[leaf] if isinstance(leaf, TensorRef) else leaf for leaf in call.leaves()]
        tensors = [alive[ref] for ref in call.inputs()]
        if len(tensors) == 1 and _is_plain_tensor(tensors[0]):
            function = self._function(operation)
            if function is not None:
                linear = function.linear(tensors[0])
                return [linear if function.activation is None else function.activation(linear)]
        return list(tree.flatten(_called(self._instance(index), call, given)))

    def put(self, index: int, values: Iterable[Value]) -> None:
        """Take the outputs of the call that is next as known."""
        for position, value in enumerate(values):
            if self._readers[TensorRef(index, position)]:
                self._values[TensorRef(index, position)] = value
        self._release(index)
        self.at = index + 1

    def _release(self, index: int) -> None:
        for ref in self.graph.calls[index].inputs():
            self._readers[ref] -= 1
            if not self._readers[ref]:
                self._values.pop(ref, None)

    def peek(self, index: int) -> Outcome:
        """What the next call gives, without going on to the call behind it."""
        return self._outcome(index, self._values)

    def ahead(self, index: int) -> Outcome:
        """What a later call gives, without going on."""
        refs = self.graph.calls[index].inputs()
        return self._outcome(index, {ref: self.value(ref) for ref in refs})

    def seconds(self, index: int, times: int = 5) -> float:
        """The least time of the next call alone, of several, without going on."""
        found = []
        for _ in range(times + 1):
            started = time.perf_counter()
            self._outcome(index, self._values, before=False)
            found.append(time.perf_counter() - started)
        return min(found)

    def value(self, ref: TensorRef) -> Value:
        """A tensor that is kept, or worked out ahead of its turn and not kept."""
        if ref in self._values:
            return self._values[ref]
        needed, stack = set(), [ref.call]
        while stack:
            index = stack.pop()
            needed.add(index)
            sources = (r for r in self.graph.calls[index].inputs() if r not in self._values)
            stack.extend(r.call for r in sources if r.call not in needed)
        ahead = dict(self._values)
        for index in sorted(needed):
            for position, value in enumerate(self._outcome(index, ahead).after):
                ahead[TensorRef(index, position)] = value
        return ahead[ref]

    def _outcome(
        self, index: int, values: Mapping[TensorRef, Value], before: bool = True
    ) -> Outcome:
        """What a call gives; without `before`, what it gives before its activation is left out."""
        call = self.graph.calls[index]
        operation = self.graph.operations[call.operation]
        if operation.kind == "InputLayer":
            given = (Value(np.asarray(self._inputs[TensorRef(index, 0)])),)
            return Outcome(given, given)
        leaves = call.leaves()
        arguments = [values[leaf] if isinstance(leaf, TensorRef) else leaf for leaf in leaves]
        if len(tensors := [one for one in arguments if isinstance(one, Value)]) == 1:
            function = self._function(operation) if _is_plain(tensors[0]) else None
            if function is not None:
                return _direct_outcome(function, tensors[0], before)
        layer = self._instance(index)
        rows = self._rows(call, values)
        run = partial(_called, layer, call)
        activation = fused_activation(operation, layer)
        if activation is None or not before:
            outputs = _in_batches(run, arguments, rows)
            return Outcome(outputs, outputs)
        layer.activation = None
        try:
            linear = _in_batches(run, arguments, rows)
        finally:
            layer.activation = activation
        after = _in_batches(lambda given: activation(given[0]), [linear[0]], rows)
        return Outcome(linear, (replace(after[0], mask=linear[0].mask),))

    def _function(self, operation: Operation) -> Direct | None:
        """The operation as functions, made once."""
        shared = self._layers is not None and self._layers.holds(operation)
        made = self._layers.functions if shared and self._layers else self._functions
        if operation.name not in made:
            made[operation.name] = direct(operation)
        return made[operation.name]

    def _rows(self, call: Call, values: Mapping[TensorRef, Value]) -> int:
        """How many rows a tensor has: samples, or steps of all samples."""
        refs = call.inputs()
        if not refs or not all(self.graph.spec(ref).steps for ref in refs):
            return self.samples
        return len(values[refs[0]].array)

    def _instance(self, index: int) -> Any:
        call = self.graph.calls[index]
        operation = self.graph.operations[call.operation]
        if self._layers is None or not self._layers.holds(operation):
            return self._made(index)
        made = self._layers.made
        if call.operation not in made:
            made[call.operation] = self._made(index)
        return made[call.operation]

    def _made(self, index: int) -> Any:
        call = self.graph.calls[index]
        if call.operation not in self._instances:
            self._instances[call.operation] = made_layer(self.graph, call)
        return self._instances[call.operation]


def outputs_of(graph: Graph, inputs: Any) -> list[Any]:
    """The outputs of a graph for samples.

    For a graph that is run once this is faster than a model, which is compiled first.

    Args:
        graph: The graph.
        inputs: Nested as the graph nests its inputs, one sample a row.

    Returns:
        An array `(n, …)` for each output.
    """
    return Run(graph, inputs, graph.output_refs()).outputs(0)


def same_operation(one: Operation, other: Operation) -> bool:
    """Whether two operations are the same layer, with the same settings and arrays."""
    return one is other or (
        one.source is other.source
        and one.config == other.config
        and one.weights.keys() == other.weights.keys()
        and all(
            weight.source is other.weights[name].source
            and weight.shape == other.weights[name].shape
            for name, weight in one.weights.items()
        )
    )


def fused_activation(operation: Operation, layer: Any) -> Any:
    """The function that a layer applies last, where it is an argument of the layer."""
    if operation.kind == "Activation" or "activation" not in (operation.config or {}):
        return None
    if not {"kernel"} & set(operation.weights):
        return None
    activation = getattr(layer, "activation", None)
    return None if activation is keras.activations.linear else activation


def _called(layer: Any, call: Call, given: list[Any]) -> Any:
    """What a layer gives for the leaves of a call's arguments."""
    args, kwargs = tree.pack_sequence_as((call.args, dict(call.kwargs)), given)
    if takes_training(layer) and len(args) < 2:
        # As `predict` does, whatever the layer was connected with.
        kwargs = {**kwargs, "training": False}
    return layer(*args, **kwargs)


def _is_plain_tensor(tensor: Any) -> bool:
    float32 = keras.backend.standardize_dtype(tensor.dtype) == "float32"
    return float32 and len(tensor.shape) > 1 and mask_of(tensor) is None


def _is_plain(value: Value) -> bool:
    return value.mask is None and value.array.dtype == np.float32 and value.array.ndim > 1


def _direct_outcome(function: Direct, given: Value, before: bool) -> Outcome:
    rows, activation = len(given.array), function.activation
    if activation is None or before:
        linear = _in_batches(lambda x: function.linear(x[0]), [given], rows)
        if activation is None:
            return Outcome(linear, linear)
        return Outcome(linear, _in_batches(lambda x: activation(x[0]), [linear[0]], rows))
    after = _in_batches(lambda x: activation(function.linear(x[0])), [given], rows)
    return Outcome(after, after)


def _symbolic(spec: TensorSpec) -> keras.KerasTensor:
    return keras.KerasTensor(spec.shape, dtype=spec.dtype)


def _in_batches(
    run: Callable[[list[Any]], Any], arguments: list[Any], samples: int
) -> tuple[Value, ...]:
    """Run on slices of the tensors among the arguments, and join what comes out.

    Tensors whose first axis is not the batch cannot be sliced; then all samples run at once.
    """
    tensors = [a for a in arguments if isinstance(a, Value)]
    parts: list[list[Value]] = []
    sliceable = all(t.array.ndim > 0 and len(t.array) == samples for t in tensors)
    size = _batch_size(tensors, samples) if sliceable else max(samples, 1)
    for start in range(0, samples, size):
        stop = min(start + size, samples)
        given = [
            _tensor(a, slice(start, stop) if sliceable else None) if isinstance(a, Value) else a
            for a in arguments
        ]
        outputs = [_value(tensor) for tensor in tree.flatten(run(given))]
        if any(o.array.ndim == 0 or len(o.array) != stop - start for o in outputs):
            whole = [_tensor(a, None) if isinstance(a, Value) else a for a in arguments]
            return tuple(_value(tensor) for tensor in tree.flatten(run(whole)))
        parts.append(outputs)
    return tuple(map(Value.joined, zip(*parts, strict=True)))


def _batch_size(tensors: list[Value], samples: int) -> int:
    each = sum(tensor.array.nbytes for tensor in tensors) // max(samples, 1)
    return min(max(BATCH_BYTES // max(each, 1), FEWEST), MOST)


def _tensor(value: Value, rows: slice | None) -> Any:
    tensor = keras.ops.convert_to_tensor(value.array if rows is None else value.array[rows])
    if value.mask is not None:
        set_mask(
            tensor, keras.ops.convert_to_tensor(value.mask if rows is None else value.mask[rows])
        )
    return tensor


def _value(tensor: Any) -> Value:
    mask = mask_of(tensor)
    return Value(
        to_numpy(tensor),
        None if mask is None else to_numpy(mask),
    )
