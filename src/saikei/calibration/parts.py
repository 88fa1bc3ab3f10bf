"""Run a graph on a part of the samples at a time, from tensors that are kept of all of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
from keras import tree

from saikei.calibration.layers import Layers
from saikei.calibration.run import Run
from saikei.calibration.values import Value
from saikei.graph import Graph, Operation, TensorRef, TensorSpec, sized

# Tensors of all samples are kept where they take no more bytes than this.
KEPT_BYTES = 2**26
# Otherwise at the stop, of so many, before which the fewest bytes are alive.
WINDOW = 6
# A part has as many samples as the largest tensor of so many bytes has, and at least two.
PART_BYTES, FEWEST = 2**25, 2


class Parts:
    """Runs of a graph's calls in order, with all samples but only a part of them at a time.

    What all calls give to later ones is kept of all samples at some stops only: where that is
    little, or, for large models, at the stop where it is least, as between the blocks of a
    transformer. Up to the other stops, calls run again from there.

    Args:
        graph: The graph; operations may be replaced between stops, see `replace`.
        inputs: Nested as the graph nests its inputs, one sample a row.
        stops: The calls, rising, that `before` will be called with.
        also: Tensors that are needed at a stop although no call from there on reads them.
    """

    def __init__(
        self, graph: Graph, inputs: Any, stops: Sequence[int], also: Iterable[TensorRef] = ()
    ) -> None:
        self.graph = graph
        self._inputs, self._also = inputs, list(also)
        self.samples = len(tree.flatten(inputs)[0])
        self._layers = Layers(graph)
        self._at = 0
        self._values: dict[TensorRef, Value] = {}
        self._specs = [call.outputs for call in _with_sizes(graph, inputs).calls]
        self._live = dict(zip(stops, self._live_bytes(stops), strict=True))
        self._since = 0
        self._last = {call.operation: index for index, call in enumerate(graph.calls)}
        self._whole = any(spec.steps for specs in self._specs for spec in specs)

    def replace(self, operation: Operation) -> None:
        """Replace an operation by one of the same name; what earlier calls gave stays."""
        self.graph = self.graph.with_operations({operation.name: operation})
        self._layers.replace(operation)

    def bytes_of(self, refs: Iterable[TensorRef]) -> int:
        """Bytes of tensors for one sample."""
        return sum(self._specs[ref.call][ref.output].bytes_per_sample() for ref in refs)

    def size(self, stop: int) -> int:
        """How many samples are in a part, up to a stop."""
        largest = max((_bytes(specs) for specs in self._specs[self._at : stop]), default=1)
        return max(FEWEST, PART_BYTES // max(largest, 1))

    def before(self, stop: int, size: int | None = None) -> Iterator[tuple[slice, Run]]:
        """For each part of the samples, a run whose next call is a stop.

        Args:
            stop: The number of a call, or of all calls for what is behind the last one.
            size: How many samples are in a part; `None` takes as many as `size` gives.

        Yields:
            The rows of the samples, and the run on them. The run may be stepped on: where tensors
            are kept, the next stop is reached from where it is left.
        """
        keeps, kept, end = self._keeps(stop), [], stop
        parts = self._parts(size or self.size(stop))
        for rows in parts:
            run = self._run(rows)
            while run.at < stop:
                run.advance(run.at)
            yield rows, run
            if keeps:
                kept.append(run.values())
                end = run.at
        joined = _joined(kept, parts, self._values) if keeps else None
        if joined is None:
            return
        self._values, self._at, self._since = joined, end, 0
        self._layers.release([name for name, last in self._last.items() if last < end])

    def _run(self, rows: slice) -> Run:
        inputs = tree.map_structure(lambda leaf: leaf[rows], self._inputs)
        values = {
            ref: value if len(value.array) != self.samples else value.rows(rows)
            for ref, value in self._values.items()
        }
        return Run.resumed(self.graph, inputs, values, self._at, self._also, self._layers)

    def _parts(self, size: int) -> list[slice]:
        """Parts of two sizes or more, so that tensors with a row for each sample are known."""
        if self._whole or self.samples < 2 * FEWEST or size >= self.samples:
            return [slice(0, self.samples)]
        ends = np.linspace(0, self.samples, -(-self.samples // size) + 1).astype(int)
        if len(set(np.diff(ends))) == 1:
            ends[1] += 1 if ends[1] < ends[2] - 1 else -1
        return [slice(int(a), int(b)) for a, b in pairwise(ends)]

    def _keeps(self, stop: int) -> bool:
        """Whether to keep at a stop what later calls read."""
        if stop not in self._live or stop <= self._at:
            return False
        self._since += 1
        coming = [live for other, live in self._live.items() if other > stop][: WINDOW - 1]
        live = self._live[stop]
        if live * self.samples <= KEPT_BYTES:
            return True
        # From the last stop only what is behind it is left to be run, such as logits.
        return bool(coming) and (live <= min(coming) or self._since >= WINDOW)

    def _live_bytes(self, stops: Sequence[int]) -> list[int]:
        """Bytes for each sample of what is read later, before or behind the call of each stop."""
        last: dict[TensorRef, int] = dict.fromkeys(self._also, len(self.graph.calls))
        for index, call in enumerate(self.graph.calls):
            last |= {ref: max(index, last.get(ref, 0)) for ref in call.inputs()}
        return [
            max(
                self.bytes_of(ref for ref, end in last.items() if ref.call < at <= end)
                for at in (stop, stop + 1)
            )
            for stop in stops
        ]


def largest_bytes(graph: Graph, inputs: Any, until: int | None = None) -> int:
    """Bytes, for one sample, of all that the largest call gives; at least 1.

    Args:
        graph: The graph.
        inputs: Nested as the graph nests its inputs, one sample a row.
        until: The call before which to stop looking; `None` looks at all.
    """
    calls = _with_sizes(graph, inputs).calls[:until]
    return max((_bytes(call.outputs) for call in calls), default=1) or 1


def _with_sizes(graph: Graph, inputs: Any) -> Graph:
    """The graph with the sizes that its tensors have for these inputs."""
    leaves = tree.flatten(inputs)
    names = [graph.calls[ref.call].operation for ref in graph.input_refs()]
    sizes = {name: tuple(leaf.shape[1:]) for name, leaf in zip(names, leaves, strict=True)}
    if all(graph.sizes.get(name) == size for name, size in sizes.items()):
        return sized(graph).graph
    return sized(replace(graph, sizes={**graph.sizes, **sizes})).graph


def _bytes(specs: Sequence[TensorSpec]) -> int:
    return sum(spec.bytes_per_sample() for spec in specs)


def _joined(
    kept: Sequence[dict[TensorRef, Value]],
    parts: Sequence[slice],
    known: Mapping[TensorRef, Value],
) -> dict[TensorRef, Value] | None:
    """The tensors of all samples; `None` where one has other rows than the samples.

    Those that are known of all samples are not copied, and of the others each part is let go of.
    """
    sizes = [part.stop - part.start for part in parts]
    found = {}
    for ref in list(kept[0]):
        values = [values.pop(ref) for values in kept]
        rows = [len(value.array) if value.array.ndim else 0 for value in values]
        if ref in known:
            found[ref] = known[ref]
        elif rows == sizes:
            found[ref] = Value.joined(values)
        elif len(set(rows)) == 1 and rows[0] != sum(sizes):
            found[ref] = values[0]
        else:
            return None
    return found
