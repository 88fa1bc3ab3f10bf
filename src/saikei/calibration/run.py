"""Run a graph call by call on calibration inputs, and keep only the tensors still needed."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from keras import tree

from saikei.calibration.layers import Layers, Outcome, called, outcome_of
from saikei.calibration.values import (
    BATCH_BYTES,
    FEWEST,
    MOST,
    Array,
    Value,
    is_plain_tensor,
    tensor_of,
)
from saikei.graph import Call, Graph, Operation, TensorRef
from saikei.tensors import to_floats, to_numpy


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
        self._layers, self._own = layers, Layers(graph)
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
        self._own.release([operation.name])

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
        alive = {ref: tensor_of(value, rows) for ref, value in self._values.items()}
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
            return [tensor_of(Value(np.asarray(self._inputs[TensorRef(index, 0)])), rows)]
        given = [alive[leaf] if isinstance(leaf, TensorRef) else leaf for leaf in call.leaves()]
        tensors = [alive[ref] for ref in call.inputs()]
        if len(tensors) == 1 and is_plain_tensor(tensors[0]):
            function = self._layers_of(operation).function(operation)
            if function is not None:
                linear = function.linear(tensors[0])
                return [linear if function.activation is None else function.activation(linear)]
        return list(
            tree.flatten(called(self._layers_of(operation).instance(self.graph, call), call, given))
        )

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
        layers = self._layers_of(operation)
        return outcome_of(layers, self.graph, call, arguments, self._rows(call, values), before)

    def _layers_of(self, operation: Operation) -> Layers:
        """The layers that are shared, or those of this run where they have another operation."""
        shared = self._layers
        return shared if shared is not None and shared.holds(operation) else self._own

    def _rows(self, call: Call, values: Mapping[TensorRef, Value]) -> int:
        """How many rows a tensor has: samples, or steps of all samples."""
        refs = call.inputs()
        if not refs or not all(self.graph.spec(ref).steps for ref in refs):
            return self.samples
        return len(values[refs[0]].array)


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
