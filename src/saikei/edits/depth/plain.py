"""Chains without a shortcut that give as many channels as they read."""

from __future__ import annotations

from dataclasses import dataclass

from saikei.edits.depth.dominators import NORMALISATIONS, has_kernel
from saikei.edits.depth.units import Unit, make_unit
from saikei.edits.folding.no_ops import is_no_op
from saikei.edits.folding.readers import OUTPUT, readers
from saikei.graph import Graph, TensorRef

# Longer chains are not considered.
LONGEST = 3
_ACTIVATIONS = {"Activation", "ELU", "LeakyReLU", "PReLU", "ReLU"}
_FUNCTIONS = {
    "ops.Celu",
    "ops.Elu",
    "ops.Gelu",
    "ops.HardSigmoid",
    "ops.HardSilu",
    "ops.HardTanh",
    "ops.LeakyRelu",
    "ops.Mish",
    "ops.Relu",
    "ops.Relu6",
    "ops.Selu",
    "ops.Sigmoid",
    "ops.Silu",
    "ops.Softplus",
    "ops.Softsign",
    "ops.Tanh",
}


@dataclass(frozen=True)
class _Layer:
    """A call with a kernel, and the normalisation and activation after it.

    Args:
        name: The name of the operation with the kernel.
        reads: The tensor that it reads.
        gives: The output of the last call.
        read_by: The one call that reads this; `None` where there is none or several.
    """

    name: str
    reads: TensorRef
    gives: TensorRef
    read_by: int | None


def plain_units(graph: Graph) -> list[Unit]:
    """Layers, with the normalisation and activation after them, that keep the shape.

    Where a single layer changes the shape, up to three in a row that together keep it. Shorter
    chains come first, and no two overlap. What gives an output of the model stays.
    """
    layers = _layers(graph)
    found: list[Unit] = []
    taken: set[int] = set()
    for length in range(1, LONGEST + 1):
        for start in layers:
            run = _run(layers, start, length)
            if not run or taken & set(run):
                continue
            around = {layers[run[-1]].gives: layers[start].reads}
            unit = make_unit(graph, layers[start].name, "plain", around)
            if unit is not None:
                taken |= set(run)
                found.append(unit)
    return found


def _run(layers: dict[int, _Layer], start: int, length: int) -> list[int]:
    """So many layers in a row, by the numbers of their calls; empty where there are fewer."""
    run = [start]
    while len(run) < length:
        following = layers[run[-1]].read_by
        if following is None or following not in layers:
            return []
        run.append(following)
    return run


def _layers(graph: Graph) -> dict[int, _Layer]:
    reading = readers(graph)

    def only_reader(ref: TensorRef) -> int | None:
        found = reading.get(ref, [])
        return found[0] if len(found) == 1 and found[0] != OUTPUT else None

    layers: dict[int, _Layer] = {}
    for index, call in enumerate(graph.calls):
        operation = graph.operations[call.operation]
        if not has_kernel(operation) or len(call.inputs()) != 1 or len(call.outputs) != 1:
            continue
        ref = TensorRef(index, 0)
        while (reader := only_reader(ref)) is not None and _follows(graph, reader):
            ref = TensorRef(reader, 0)
        if OUTPUT not in reading.get(ref, [OUTPUT]):
            layers[index] = _Layer(call.operation, call.inputs()[0], ref, only_reader(ref))
    return layers


def _follows(graph: Graph, index: int) -> bool:
    """Whether a call belongs to the layer before it."""
    call = graph.calls[index]
    kind = graph.operations[call.operation].kind
    if len(call.inputs()) != 1:
        return False
    return kind in NORMALISATIONS | _ACTIVATIONS | _FUNCTIONS or is_no_op(graph, index)
