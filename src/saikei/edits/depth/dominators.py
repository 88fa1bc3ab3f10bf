"""Which calls of a graph depend on which, and which are not needed when tensors are bypassed."""

from __future__ import annotations

from collections.abc import Mapping

from saikei.channels import ChannelMap
from saikei.costs import Counts, call_macs
from saikei.graph import Graph, Operation, TensorRef, value_inputs
from saikei.rules.base import product
from saikei.tensors import numpy_dtype

NORMALISATIONS = {
    "BatchNormalization",
    "GroupNormalization",
    "LayerNormalization",
    "RMSNormalization",
    "UnitNormalization",
}


# Only the shape of the inputs of these matters.
_OF_SHAPE = {"ops.FullLike", "ops.OnesLike", "ops.Shape", "ops.ZerosLike"}


def ancestors(graph: Graph) -> list[int]:
    """For each call, the calls whose values it depends on, as bits of an integer."""
    found: list[int] = []
    for call in graph.calls:
        bits = 0
        operation = graph.operations[call.operation]
        if not _of_shape_alone(operation):
            for ref in value_inputs(operation, call):
                bits |= found[ref.call] | 1 << ref.call
        found.append(bits)
    return found


def dominators(graph: Graph) -> list[int]:
    """For each call, the calls that every path to it from an input passes, as bits."""
    found: list[int] = []
    for index, call in enumerate(graph.calls):
        # Constants are on no path, so they do not change the dominators of the others.
        bits = -1
        operation = graph.operations[call.operation]
        if operation.kind == "InputLayer":
            bits = 0
        elif not _of_shape_alone(operation):
            for ref in value_inputs(operation, call):
                bits &= found[ref.call]
        found.append(bits if bits == -1 else bits | 1 << index)
    return found


def _of_shape_alone(operation: Operation) -> bool:
    """Whether the values that an operation reads do not matter, as for position embeddings."""
    kind = operation.kind.rpartition(".")[2]
    return operation.kind in _OF_SHAPE or kind in ("PositionEmbedding", "SinePositionEncoding")


def dead_calls(graph: Graph, around: Mapping[TensorRef, TensorRef]) -> frozenset[int]:
    """The calls that no output needs when tensors are bypassed.

    Args:
        graph: The graph that tensors are bypassed in.
        around: For each tensor that is bypassed, the earlier one that is read instead.
    """

    def source(ref: TensorRef) -> TensorRef:
        while ref in around:
            ref = around[ref]
        return ref

    needed = {source(ref).call for ref in graph.output_refs()}
    needed |= {ref.call for ref in graph.input_refs()}
    for index in range(len(graph.calls) - 1, -1, -1):
        if index in needed:
            needed.update(source(ref).call for ref in graph.calls[index].inputs())
    return frozenset(range(len(graph.calls))) - needed


def has_kernel(operation: Operation) -> bool:
    """Whether an operation mixes what it reads by weights, rather than scaling it."""
    kind = operation.kind.rpartition(".")[2]
    scales = kind in NORMALISATIONS or kind in ("LayerScale", "PReLU")
    return bool(operation.weights) and not scales


class CostTable:
    """The costs of a graph without some of its calls, where all other shapes stay."""

    def __init__(self, graph: Graph) -> None:
        channel_map = ChannelMap.of_whole(graph)
        self._graph = graph
        self._macs = [call_macs(channel_map, index) or 0 for index in range(len(graph.calls))]

    def without(self, dead: frozenset[int]) -> Counts:
        """Parameters, MACs and bytes of the calls that are left."""
        macs, counts, sizes = 0, {}, {}
        for index, call in enumerate(self._graph.calls):
            if index not in dead:
                macs += self._macs[index]
                for weight in self._graph.operations[call.operation].weights.values():
                    counts[weight.key] = product(weight.shape)
                    sizes[weight.key] = counts[weight.key] * numpy_dtype(weight.dtype).itemsize
        return Counts(sum(counts.values()), macs, sum(sizes.values()))
