"""A network in parts that are compiled once, for what is the same before and behind a change.

Call by call, a large network takes several times as long as a compiled one, and to compile it for
each option would take longer still. An option changes few calls: the parts before and behind them
are those of the original.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np
from keras import tree
from numpy.typing import NDArray

from saikei.calibration.layers import same_operation
from saikei.graph import Call, Graph, TensorRef, TensorSpec, build, new_operation, unused_name
from saikei.tensors import to_floats

# Multiply-accumulates of a network from which on compiling pays, and about how many parts it has.
LARGE, PARTS = 1e8, 24
# Samples that go through a part at once, always as many, since each number is compiled apart.
BATCH = 16

Array = NDArray[Any]


@dataclass(frozen=True)
class Join:
    """Where a changed graph goes on as the original does.

    Args:
        part: The first part of the original that is unchanged to the end.
        call: The call of the changed graph that this part begins with.
        ref: The tensor of the changed graph that the part reads.
    """

    part: int
    call: int
    ref: TensorRef


class CompiledParts:
    """A graph cut where a single tensor passes, each part compiled when it first runs.

    Args:
        graph: The graph.
        macs: Multiply-accumulates of each of its calls.
    """

    def __init__(self, graph: Graph, macs: list[int]) -> None:
        self.graph = graph
        large = sum(macs) >= LARGE and _is_plain(graph)
        cuts = list(_cuts(graph, macs)) if large else []
        self.starts = (0, *(index for index, _ in cuts))
        self.refs = tuple(ref for _, ref in cuts)
        self._models: dict[int, keras.Model] = {}

    def at(self, index: int) -> int:
        """The part that a call is in."""
        return bisect_right(self.starts, index) - 1

    def given(self, part: int) -> TensorRef:
        """The tensor that a part reads, other than the first one."""
        return self.refs[part - 1]

    def run(self, part: int, inputs: Any) -> Any:
        """What a part gives: what the next one reads, or a list of the graph's outputs.

        Args:
            part: The part.
            inputs: What it reads, of all samples; of the first part nested as the graph nests it.
        """
        if part not in self._models:
            self._models[part] = build(self._graph_of(part))
        count = len(tree.flatten(inputs)[0])
        found = [
            _padded(self._models[part], inputs, slice(start, min(start + BATCH, count)))
            for start in range(0, count, BATCH)
        ]
        joined = [np.concatenate(arrays) for arrays in zip(*found, strict=True)]
        return joined if part == len(self.refs) else joined[0]

    def outputs(self, part: int, inputs: Any) -> list[Array]:
        """The graph's outputs, from what a part reads."""
        for number in range(part, len(self.starts)):
            inputs = self.run(number, inputs)
        return [to_floats(array) for array in inputs]

    def join(self, changed: Graph, start: int) -> Join | None:
        """Where a changed graph goes on as this one does; `None` if it does not.

        Args:
            changed: The changed graph.
            start: Its first call that is not run yet.
        """
        shift = len(changed.calls) - len(self.graph.calls)

        def moved(ref: TensorRef) -> TensorRef:
            return TensorRef(ref.call + shift, ref.output)

        if len(self.starts) == 1 or changed.output_refs() != [
            moved(ref) for ref in self.graph.output_refs()
        ]:
            return None
        first = len(self.graph.calls)
        while first + shift > start and first and self._same(changed, first - 1, shift):
            first -= 1
        for part, (index, ref) in enumerate(zip(self.starts[1:], self.refs, strict=True), 1):
            there = moved(ref)
            if index >= first and there.call >= 0 and self.graph.spec(ref) == changed.spec(there):
                return Join(part, index + shift, there)
        return None

    def _same(self, changed: Graph, index: int, shift: int) -> bool:
        one, other = self.graph.calls[index], changed.calls[index + shift]
        mine, given = one.leaves(), other.leaves()
        if one.operation != other.operation or len(mine) != len(given):
            return False
        same = all(
            b == TensorRef(a.call + shift, a.output) if isinstance(a, TensorRef) else a is b
            for a, b in zip(mine, given, strict=True)
        )
        operations = self.graph.operations[one.operation], changed.operations[other.operation]
        return same and same_operation(*operations)

    def _graph_of(self, part: int) -> Graph:
        graph, start = self.graph, self.starts[part]
        last = part == len(self.refs)
        calls = graph.calls[start:] if last else graph.calls[start : self.starts[part + 1]]
        outputs = graph.outputs if last else self.refs[part]
        inputs = graph.inputs
        operations = {call.operation: graph.operations[call.operation] for call in calls}
        if part:
            given = self.given(part)
            spec = graph.spec(given)
            name = unused_name(graph, "given")
            layer = keras.layers.InputLayer(spec.shape[1:], dtype=spec.dtype, name=name)
            operations[name] = new_operation(name, layer)
            moved = {given: TensorRef(0, 0)}
            calls = (
                Call(name, (), {}, (TensorSpec(spec.shape, spec.dtype),)),
                *(_moved(call, moved, start) for call in calls),
            )
            inputs = TensorRef(0, 0)
            outputs = tree.map_structure(lambda ref: _shifted(ref, moved, start), outputs)
        return replace(
            graph, operations=operations, calls=calls, inputs=inputs, outputs=outputs, marks=()
        )


def _moved(call: Call, moved: dict[TensorRef, TensorRef], start: int) -> Call:
    args, kwargs = tree.map_structure(
        lambda leaf: _shifted(leaf, moved, start) if isinstance(leaf, TensorRef) else leaf,
        (call.args, dict(call.kwargs)),
    )
    return replace(call, args=args, kwargs=kwargs)


def _shifted(ref: TensorRef, moved: dict[TensorRef, TensorRef], start: int) -> TensorRef:
    return moved.get(ref, TensorRef(ref.call - start + 1, ref.output))


def _padded(model: keras.Model, inputs: Any, rows: slice) -> list[Array]:
    """The outputs for some samples, filled up to a whole batch with the last one."""
    chosen = np.minimum(np.arange(rows.start, rows.start + BATCH), rows.stop - 1)
    given = tree.map_structure(lambda leaf: np.asarray(leaf)[chosen], inputs)
    outputs = tree.flatten(model.predict_on_batch(given))
    return [np.asarray(one)[: rows.stop - rows.start] for one in outputs]


def _is_plain(graph: Graph) -> bool:
    """Whether tensors have known shapes and no masks, which would be lost between the parts."""
    own = all(
        type(op.source).__module__.startswith("keras.")
        and op.kind != "Masking"
        and not (op.config or {}).get("mask_zero")
        for op in graph.operations.values()
    )
    specs = (spec for call in graph.calls for spec in call.outputs)
    return own and all(None not in spec.shape[1:] and not spec.steps for spec in specs)


def _cuts(graph: Graph, macs: list[int]) -> Iterator[tuple[int, TensorRef]]:
    """Calls before which a single tensor passes, with that tensor, at about equal distances."""
    last: dict[TensorRef, int] = {}
    for index, call in enumerate(graph.calls):
        last.update(dict.fromkeys(call.inputs(), index))
    last.update(dict.fromkeys(graph.output_refs(), len(graph.calls)))
    inputs = max(ref.call for ref in graph.input_refs())
    alive: set[TensorRef] = set()
    done, step = 0, sum(macs) / PARTS
    for index, call in enumerate(graph.calls):
        alive = {ref for ref in alive if last[ref] >= index}
        enough = done >= step and sum(macs[index:]) >= step
        if index > inputs and len(alive) == 1 and enough:
            (ref,) = alive
            if ref not in graph.output_refs():
                yield index, ref
                done = 0
        own = (TensorRef(index, number) for number in range(len(call.outputs)))
        alive |= {ref for ref in own if ref in last}
        done += macs[index]
