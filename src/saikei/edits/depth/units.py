"""The parts of a graph that can be left out, found from how its calls read each other."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal, get_args

from saikei.edits.depth.dominators import dead_calls
from saikei.graph import Graph, TensorRef

UnitKind = Literal["residual", "projection", "block", "plain"]
KINDS: tuple[UnitKind, ...] = get_args(UnitKind)


@dataclass(frozen=True)
class Unit:
    """A part of a graph that can be left out.

    Args:
        name: The name of the operation that joins a branch to its shortcut, or of the first layer
            of a plain chain, with the call's number where an operation is called several times.
        kind: `"residual"`: the shortcut is what the branch reads; `"projection"`: it is a linear
            layer or pooling of that; `"block"`: residual units that belong together, such as
            attention and feed-forward; `"plain"`: a chain without a shortcut, with as many
            channels at its end as at its start.
        around: The tensors that it gives, and the earlier ones that replace them without it.
        calls: The calls that are not needed without it.
    """

    name: str
    kind: UnitKind
    around: Mapping[TensorRef, TensorRef]
    calls: frozenset[int]

    def contains(self, other: Unit) -> bool:
        """Whether the other unit goes when this one does."""
        return other is not self and all(ref.call in self.calls for ref in other.around)

    def layers(self, graph: Graph) -> tuple[str, ...]:
        """The operations that it calls, in order."""
        return tuple(dict.fromkeys(graph.calls[i].operation for i in sorted(self.calls)))


def make_unit(
    graph: Graph, name: str, kind: UnitKind, around: Mapping[TensorRef, TensorRef]
) -> Unit | None:
    """The unit that is left out by bypassing it.

    Returns:
        `None` where that leaves nothing to compute between an input and an output of the model,
        or where a tensor and its replacement differ in shape or dtype.
    """
    outputs, inputs = set(graph.output_refs()), set(graph.input_refs())
    for given, taken in around.items():
        if graph.spec(given) != graph.spec(taken) or "float" not in graph.spec(given).dtype:
            return None
        if given in outputs and taken in inputs:
            return None
    return Unit(name, kind, dict(around), dead_calls(graph, around))


def named_apart(units: Iterable[Unit]) -> list[Unit]:
    """The units in the order of their calls, with names of their own."""
    ordered = sorted(units, key=lambda unit: (max(unit.calls), len(unit.calls)))
    count: dict[str, int] = {}
    named = []
    for unit in ordered:
        count[unit.name] = count.get(unit.name, 0) + 1
        number = count[unit.name]
        named.append(unit if number == 1 else replace(unit, name=f"{unit.name}#{number}"))
    return named


def leaves(units: Iterable[Unit]) -> list[Unit]:
    """The units that contain no other."""
    everything = list(units)
    return [u for u in everything if not any(u.contains(other) for other in everything)]
