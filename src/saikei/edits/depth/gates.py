"""One model that computes a graph with any choice of its units left out."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any, TypeAlias

import keras
import numpy as np
from keras import ops, tree
from numpy.typing import NDArray

from saikei.batches import predict_arrays
from saikei.graph import (
    Call,
    Graph,
    TensorRef,
    TensorSpec,
    build,
    layers_of,
    new_operation,
    new_weight,
    unused_name,
)
from saikei.tensors import to_floats

BATCH = 64
Array: TypeAlias = NDArray[Any]


class Gate(keras.layers.Layer):
    """The first of two tensors while it is open, and the second when it is shut."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True

    def build(self, input_shape: Any) -> None:
        """Make the switch, which is 1 or 0."""
        self.open = self.add_weight(shape=(), initializer="ones", trainable=False, name="open")
        self.built = True

    def call(self, inputs: Any) -> Any:
        """Let one of the two pass."""
        given, taken = inputs
        return ops.where(ops.cast(self.open, "float32") > 0.5, given, taken)

    def compute_output_spec(self, inputs: Any) -> Any:
        """The first tensor, as a dense one: symbolic ones may be sparse where tensors never are."""
        return keras.KerasTensor(inputs[0].shape, dtype=self.compute_dtype)

    def compute_mask(self, inputs: Any, previous_mask: Any) -> Any:
        """The mask of the first tensor."""
        return previous_mask[0] if isinstance(previous_mask, (list, tuple)) else previous_mask


class GatedModel:
    """Runs a graph with some of its units bypassed, without building it again.

    Args:
        graph: The graph to run.
        around: For each tensor that can be bypassed, the earlier tensor that replaces it.
        inputs: The inputs of the samples, nested as the graph nests its inputs.
    """

    def __init__(self, graph: Graph, around: Mapping[TensorRef, TensorRef], inputs: Any) -> None:
        self._inputs = inputs
        self._gates: dict[TensorRef, str] = {}
        self._around = dict(around)
        gated = self._with_gates(graph)
        self._model = build(gated)
        self._layers = layers_of(gated, self._model)

    def run(self, shut: Collection[TensorRef]) -> list[Array]:
        """The model's outputs, flattened."""
        for ref, name in self._gates.items():
            self._layers[name].open.assign(0.0 if ref in shut else 1.0)
        predicted = predict_arrays(self._model, tree.flatten(self._inputs), BATCH)
        return [to_floats(output) for output in tree.flatten(predicted)]

    def _with_gates(self, graph: Graph) -> Graph:
        """The graph with a gate after each tensor that can be bypassed."""
        writer = _Writer(graph)
        for index, call in enumerate(graph.calls):
            writer.copy(index)
            for position, spec in enumerate(call.outputs):
                ref = TensorRef(index, position)
                if ref not in self._around:
                    continue
                pair = [writer.moved[ref], writer.moved[self._around[ref]]]
                gate = Gate(dtype=_policy(spec.dtype))
                writer.moved[ref] = writer.append("gate", gate, pair, spec, open=np.ones(()))
                self._gates[ref] = writer.last
        return writer.graph()


class _Writer:
    """Copies a graph's calls one by one, with others in between."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._operations = dict(graph.operations)
        self._calls: list[Call] = []
        self.moved: dict[TensorRef, TensorRef] = {}

    @property
    def last(self) -> str:
        """The operation of the last call."""
        return self._calls[-1].operation

    def copy(self, index: int) -> None:
        """Copy a call, reading tensors from where they are now."""
        call = self._graph.calls[index]
        args, kwargs = tree.map_structure(
            lambda leaf: self.moved[leaf] if isinstance(leaf, TensorRef) else leaf,
            (call.args, dict(call.kwargs)),
        )
        self._calls.append(replace(call, args=args, kwargs=kwargs))
        for position in range(len(call.outputs)):
            self.moved[TensorRef(index, position)] = TensorRef(len(self._calls) - 1, position)

    def append(
        self, name: str, layer: Any, refs: list[TensorRef], spec: TensorSpec, **weights: Array
    ) -> TensorRef:
        """Call a new layer on tensors of the new graph."""
        unused = unused_name(self._graph, name, self._operations)
        held = {key: new_weight(array.astype("float32")) for key, array in weights.items()}
        self._operations[unused] = new_operation(unused, layer, held)
        self._calls.append(Call(unused, (refs,), {}, (spec,)))
        return TensorRef(len(self._calls) - 1, 0)

    def graph(self) -> Graph:
        """The new graph."""
        inputs = [self.moved[ref] for ref in self._graph.input_refs()]
        outputs = [self.moved[ref] for ref in self._graph.output_refs()]
        name = self._graph.name
        return Graph(name, self._operations, tuple(self._calls), inputs, outputs)


def _policy(dtype: str) -> str:
    """Compute in the tensor's own dtype, with the switch in float32."""
    return dtype if dtype in ("float32", "float64") else f"mixed_{dtype}"
