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

    def compute_mask(self, inputs: Any, previous_mask: Any) -> Any:
        """The mask of the first tensor."""
        return previous_mask[0] if isinstance(previous_mask, (list, tuple)) else previous_mask


class CosineDistance(keras.layers.Layer):
    """1 − cos of the angle between two tensors of a sample, `(batch,)`."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True

    def call(self, inputs: Any) -> Any:
        """Compare them, all their numbers as one vector."""
        given, taken = (
            ops.cast(ops.reshape(tensor, (ops.shape(tensor)[0], -1)), "float32")
            for tensor in inputs
        )
        lengths = ops.norm(given, axis=-1) * ops.norm(taken, axis=-1)
        return 1 - ops.sum(given * taken, axis=-1) / ops.maximum(lengths, 1e-30)

    def compute_mask(self, inputs: Any, previous_mask: Any) -> None:
        """No mask, as the output has no steps."""


class GatedModel:
    """Runs a graph with some of its units bypassed, without building it again.

    Args:
        graph: The graph to run.
        around: For each tensor that can be bypassed, the earlier tensor that replaces it.
        inputs: The inputs of the samples, nested as the graph nests its inputs.
        distances: Whether to measure the distance of each such tensor to its replacement.
    """

    def __init__(
        self,
        graph: Graph,
        around: Mapping[TensorRef, TensorRef],
        inputs: Any,
        distances: bool = False,
    ) -> None:
        self._inputs = inputs
        self._gates: dict[TensorRef, str] = {}
        self._around = dict(around)
        self._outputs = len(graph.output_refs())
        gated = self._with_gates(graph, distances)
        self._model = build(gated)
        self._layers = layers_of(gated, self._model)

    def run(self, shut: Collection[TensorRef]) -> tuple[list[Array], dict[TensorRef, float]]:
        """The model's outputs, flattened, and the mean distances where they are measured."""
        for ref, name in self._gates.items():
            self._layers[name].open.assign(0.0 if ref in shut else 1.0)
        given = tree.flatten(self._inputs)
        predicted = predict_arrays(self._model, given, BATCH)
        found = [to_floats(output) for output in tree.flatten(predicted)]
        measured = zip(self._gates, found[self._outputs :], strict=False)
        return found[: self._outputs], {ref: float(np.mean(far)) for ref, far in measured}

    def _with_gates(self, graph: Graph, distances: bool) -> Graph:
        """The graph with a gate after each tensor that can be bypassed."""
        writer = _Writer(graph)
        measured: list[TensorRef] = []
        for index, call in enumerate(graph.calls):
            writer.copy(index)
            for position, spec in enumerate(call.outputs):
                ref = TensorRef(index, position)
                if ref not in self._around:
                    continue
                pair = [writer.moved[ref], writer.moved[self._around[ref]]]
                if distances:
                    measured.append(writer.append("distance", CosineDistance(), pair, _DISTANCE))
                gate = Gate(dtype=_policy(spec.dtype))
                writer.moved[ref] = writer.append("gate", gate, pair, spec, open=np.ones(()))
                self._gates[ref] = writer.last
        return writer.graph(measured)


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

    def graph(self, also: list[TensorRef]) -> Graph:
        """The new graph, with more outputs after the old ones."""
        inputs = [self.moved[ref] for ref in self._graph.input_refs()]
        outputs = [self.moved[ref] for ref in self._graph.output_refs()]
        name = self._graph.name
        return Graph(name, self._operations, tuple(self._calls), inputs, outputs + also)


_DISTANCE = TensorSpec((None,), "float32")


def _policy(dtype: str) -> str:
    """Compute in the tensor's own dtype, with the switch in float32."""
    return dtype if dtype in ("float32", "float64") else f"mixed_{dtype}"
