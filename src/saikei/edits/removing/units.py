"""Parts of a graph that can be left out: what they read and what they give has one shape.

They are found from the graph alone. A residual unit is a branch whose result is added to the
tensor that it starts from; a plain one is a layer that keeps the shape, with the normalisation
and the activation behind it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from saikei.graph import Call, Graph, TensorRef
from saikei.rules import find_rule

_ADDITIONS = frozenset({"Add", "ops.Add", "CustomScaleLayer"})


@dataclass(frozen=True)
class Unit:
    """A part that can be left out.

    Args:
        name: of the call at its end.
        kind: `"residual"` or `"plain"`.
        start: the tensor that takes the place of the unit's result.
        end: the unit's result.
        calls: the numbers of the calls that go.
        layers: the layers with weights that go.
    """

    name: str
    kind: str
    start: TensorRef
    end: TensorRef
    calls: frozenset[int] = field(repr=False)
    layers: tuple[str, ...]


def find_units(graph: Graph) -> tuple[Unit, ...]:
    """The removable parts of a graph, none within another, in the graph's order."""
    search = _Search(graph)
    residual = [unit for i in range(len(graph.calls)) for unit in search.residual(i)]
    # Of two that overlap, the smaller: the larger then goes piece by piece.
    chosen: list[Unit] = []
    for unit in sorted(residual, key=lambda unit: len(unit.calls)):
        if all(unit.calls.isdisjoint(other.calls) for other in chosen):
            chosen.append(unit)
    taken = {index for unit in chosen for index in unit.calls}
    for index in range(len(graph.calls)):
        found = search.plain(index)
        if found is not None and taken.isdisjoint(found.calls):
            chosen.append(found)
            taken |= found.calls
    return tuple(sorted(chosen, key=lambda unit: unit.end.call))


class _Search:
    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.outputs = set(graph.output_refs())
        self.readers: dict[TensorRef, list[int]] = {}
        self.calls_of: dict[str, int] = {}
        for index, call in enumerate(graph.calls):
            self.calls_of[call.operation] = self.calls_of.get(call.operation, 0) + 1
            for ref in call.inputs():
                self.readers.setdefault(ref, []).append(index)

    def residual(self, index: int) -> list[Unit]:
        """The unit that ends with an addition of its branch to where the branch starts."""
        call = self.graph.calls[index]
        refs = call.inputs()
        if self._kind(call) not in _ADDITIONS or len(refs) != 2:
            return []
        units = []
        for start, branch in (refs, refs[::-1]):
            end = TensorRef(index, 0)
            calls = self._between(start, [branch])
            if calls is None or self.graph.spec(start) != self.graph.spec(end):
                continue
            unit = self._unit("residual", start, end, {*calls, index})
            if unit is not None and start.call not in calls:
                units.append(unit)
        return units[:1]

    def plain(self, index: int) -> Unit | None:
        """A layer with a kernel that keeps the shape, and what stands behind it alone."""
        call = self.graph.calls[index]
        weights = self.graph.operations[call.operation].weights
        if "kernel" not in weights or not self._keeps_shape(call):
            return None
        start, last, calls = call.inputs()[0], index, {index}
        while True:
            ref = TensorRef(last, 0)
            readers = self.readers.get(ref, [])
            if len(readers) != 1 or ref in self.outputs:
                break
            follower = self.graph.calls[readers[0]]
            operation = self.graph.operations[follower.operation]
            small = all(len(weight.shape) <= 1 for weight in operation.weights.values())
            if not self._keeps_shape(follower) or not small or find_rule(operation.kind) is None:
                break
            last = readers[0]
            calls.add(last)
        end = TensorRef(last, 0)
        return None if end in self.outputs else self._unit("plain", start, end, calls)

    def _keeps_shape(self, call: Call) -> bool:
        refs = call.inputs()
        return (
            len(refs) == 1
            and len(call.outputs) == 1
            and self.graph.spec(refs[0]) == call.outputs[0]
        )

    def _unit(
        self, kind: str, start: TensorRef, end: TensorRef, calls: Iterable[int]
    ) -> Unit | None:
        """The unit, if nothing outside reads what is made inside, and no layer is shared."""
        inside = frozenset(calls)
        layers = []
        for index in sorted(inside):
            call = self.graph.calls[index]
            if self.calls_of[call.operation] > 1 or self._kind(call) == "InputLayer":
                return None
            if self.graph.operations[call.operation].weights:
                layers.append(call.operation)
            for position in range(len(call.outputs)):
                ref = TensorRef(index, position)
                if ref == end:
                    continue
                if ref in self.outputs or not inside.issuperset(self.readers.get(ref, [])):
                    return None
        name = self.graph.calls[end.call].operation
        return Unit(name, kind, start, end, inside, tuple(layers)) if layers else None

    def _between(self, start: TensorRef, ends: list[TensorRef]) -> set[int] | None:
        """The calls from `start` to `ends`; `None` when some do not come from `start` alone."""
        calls: set[int] = set()
        stack = list(ends)
        reached = False
        while stack:
            ref = stack.pop()
            if ref == start:
                reached = True
                continue
            if ref.call in calls:
                continue
            if ref.call <= start.call and not self._is_constant(ref):
                return None
            calls.add(ref.call)
            stack.extend(self.graph.calls[ref.call].inputs())
        return calls if reached else None

    def _is_constant(self, ref: TensorRef) -> bool:
        return (
            not self.graph.calls[ref.call].inputs()
            and self._kind(self.graph.calls[ref.call]) != "InputLayer"
        )

    def _kind(self, call: Call) -> str:
        return self.graph.operations[call.operation].kind
