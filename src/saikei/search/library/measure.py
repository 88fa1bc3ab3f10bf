"""Measure options: apply, refit what is near, and compute what comes behind the change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import keras
from keras import tree

from saikei.calibration.layers import Layers
from saikei.calibration.run import Run
from saikei.calibration.surviving_outputs import Kept, both_kept
from saikei.calibration.values import Value
from saikei.channels import ChannelMap, map_channels
from saikei.costs import call_macs, count_costs
from saikei.edits.drop_channels import DropChannels
from saikei.edits.options import Option
from saikei.errors import SaikeiError, in_one_line
from saikei.graph import Graph, TensorRef, read
from saikei.scoring import Task
from saikei.scoring.labels import Labels
from saikei.search.interrupts import without_retracing_warnings
from saikei.search.library.compiled_parts import CompiledParts
from saikei.search.library.divergence import divergence
from saikei.search.library.library import LeftOut, Measured
from saikei.search.library.nearby import (
    Targets,
    first_difference,
    refit_nearby,
    samples_to_fit,
)


@dataclass(frozen=True, eq=False)
class Shared:
    """What all measurements of a library need.

    Args:
        model: The original.
        sizes: Shapes of samples for which costs are counted, for inputs of any size.
        inputs: Rows of inputs: first those that layers are refitted on, then those that losses
            are measured on, nested as the model nests its inputs.
        fit: How many of the rows are for the refit.
        tasks: What each output learns.
        labels: For each output, what counts of the rows that losses are measured on.
    """

    model: keras.Model
    sizes: Mapping[str, tuple[int, ...]]
    inputs: Any
    fit: int
    tasks: tuple[Task, ...]
    labels: tuple[Labels, ...]

    @cached_property
    def original(self) -> Original:
        """The model, read once for all tasks of a process."""
        graph = replace(read(self.model), sizes=dict(self.sizes))
        macs = _macs(ChannelMap.of_whole(graph))
        return Original(map_channels(graph), macs, Layers(graph), CompiledParts(graph, macs))

    def __getstate__(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(self)}


@dataclass(frozen=True, eq=False)
class Original:
    """The original, read, and what is made for computing it.

    Args:
        channel_map: Its graph with its channels.
        macs: Multiply-accumulates of each call.
        layers: Its layers.
        parts: Its compiled parts.
    """

    channel_map: ChannelMap
    macs: list[int]
    layers: Layers
    parts: CompiledParts


@dataclass(frozen=True)
class SiteTask:
    """Options to measure.

    Args:
        choices: Options that are applied together; usually one.
    """

    choices: tuple[tuple[Option, ...], ...]


@dataclass(frozen=True)
class SiteResult:
    """What was measured.

    Args:
        measured: For each choice, in order, the last of its options with loss and costs, or why
            it is left out.
        passes: Work, as rows for which the whole original was computed once.
    """

    measured: tuple[Measured | LeftOut, ...]
    passes: float


@dataclass(frozen=True, eq=False)
class _Variant:
    number: int
    graph: Graph
    kept: Kept
    at: int
    counted: ChannelMap


def measure_site(shared: Shared, task: SiteTask) -> SiteResult:
    """Measure the choices of a task.

    Args:
        shared: The model and the rows.
        task: The choices.
    """
    found: dict[int, Measured | LeftOut] = {}
    variants: list[_Variant] = []
    for number, choice in enumerate(task.choices):
        try:
            variants.append(_applied(shared.original.channel_map, number, choice))
        except SaikeiError as error:
            found[number] = LeftOut(choice[-1], in_one_line(error))
    running = _Running(shared)
    with without_retracing_warnings():
        for variant in sorted(variants, key=lambda one: one.at):
            option = task.choices[variant.number][-1]
            try:
                loss, error_of_loss = running.measure(variant)
            except SaikeiError as error:
                found[variant.number] = LeftOut(option, in_one_line(error))
                continue
            costs = count_costs(variant.counted)
            found[variant.number] = Measured(option, loss, error_of_loss, costs)
    return SiteResult(tuple(found[number] for number in range(len(task.choices))), running.passes)


def _applied(original: ChannelMap, number: int, choice: Sequence[Option]) -> _Variant:
    graph = changed = original.graph
    kept: Kept = {}
    for option in choice:
        if changed is graph and isinstance(option.edit, DropChannels):
            changed, own = option.edit.unfitted_cut(original)
        else:
            changed, own = option.edit.unfitted(changed)
        kept = both_kept(kept, own)
    changed = replace(changed, sizes=graph.sizes)
    at = first_difference(graph, changed)
    return _Variant(number, changed, kept, at, ChannelMap.of_whole(changed))


class _Running:
    """The original on all rows, run as far as the change that is measured."""

    def __init__(self, shared: Shared) -> None:
        self._shared, original = shared, shared.original
        self._graph = graph = original.channel_map.graph
        self._macs, self._parts, self._layers = original.macs, original.parts, original.layers
        self._whole = max(1, sum(self._macs))
        self._read = {0: shared.inputs}
        self._run = Run(graph, shared.inputs, layers=self._layers)
        self._targets = Targets(graph, self._inputs(slice(shared.fit)), self._layers, self._begun)
        self._next = 0
        self._outputs: list[Any] = []
        self.passes = 0.0

    def _inputs(self, rows: slice) -> Any:
        return tree.map_structure(lambda leaf: leaf[rows], self._shared.inputs)

    def measure(self, variant: _Variant) -> tuple[float, float]:
        given = self._given()
        self._until(variant.at)
        samples = samples_to_fit(variant.graph, variant.at, self._shared.fit)
        fit, held = slice(0, samples), slice(self._shared.fit, None)
        macs = _macs(variant.counted)
        refitted = refit_nearby(self._fork(variant, fit), self._start, variant.kept, self._targets)
        self._count(macs[self._start : self._start + refitted.calls], samples)
        run = self._fork(replace(variant, graph=refitted.graph), held)
        outputs = self._to_the_end(run, macs)
        return divergence(outputs, given, self._shared.tasks, self._shared.labels)

    def _to_the_end(self, run: Run, macs: list[int]) -> list[Any]:
        """The outputs of a changed graph, by parts of the original where it is the same."""
        join = self._parts.join(run.graph, self._start)
        if join is None:
            self._count(macs[self._start :], run.samples)
            return run.outputs(self._start)
        (given,) = run.tensors(range(self._start, join.call), [join.ref])
        same = self._macs[self._parts.starts[join.part] :]
        self._count([*macs[self._start : join.call], *same], run.samples)
        return self._parts.outputs(join.part, given)

    def _until(self, index: int) -> None:
        """Run the original up to a call, from the beginning of the part that this is in."""
        part = self._parts.at(index)
        start = self._parts.starts[part]
        if start > self._next:
            known = {self._parts.given(part): Value(self._part(part))}
            self._run = Run.resumed(
                self._graph, self._shared.inputs, known, start, layers=self._layers
            )
            self._next = start
            self._read = {n: read for n, read in self._read.items() if n >= part}
        self._targets.forget(index, start)
        self._count(self._macs[self._next : index], len(tree.flatten(self._shared.inputs)[0]))
        while self._next < index:
            self._run.advance(self._next)
            self._next += 1

    def _part(self, part: int) -> Any:
        """What a part of the original reads, on all rows."""
        last = max(number for number in self._read if number <= part)
        starts = self._parts.starts
        for number in range(last, part):
            self._read[number + 1] = self._parts.run(number, self._read[number])
            rows = len(self._read[number + 1])
            self._count(self._macs[starts[number] : starts[number + 1]], rows)
        return self._read[part]

    def _begun(self, index: int) -> dict[TensorRef, Value] | None:
        """What the part that begins with a call reads, on the rows of the fit."""
        part = self._parts.at(index)
        if part == 0 or self._parts.starts[part] != index:
            return None
        return {self._parts.given(part): Value(self._part(part)[: self._shared.fit])}

    def _fork(self, variant: _Variant, rows: slice) -> Run:
        """A run of a variant from its change on, or from the beginning where it has to be."""
        self._start = variant.at
        if self._next == variant.at:
            run = self._run.fork(variant.graph, variant.at, rows)
            if run is not None:
                return run
        self._start = 0
        refs = variant.graph.output_refs()
        return Run(variant.graph, self._inputs(rows), refs, self._layers)

    def _given(self) -> list[Any]:
        """The original's outputs on the rows that losses are measured on."""
        if not self._outputs:
            given = self._inputs(slice(self._shared.fit, None))
            if len(self._parts.starts) > 1:
                self._outputs = self._parts.outputs(0, given)
            else:
                run = Run(self._graph, given, self._graph.output_refs(), self._layers)
                self._outputs = run.outputs(0)
            self._count(self._macs, len(tree.flatten(given)[0]))
        return self._outputs

    def _count(self, macs: Sequence[int], rows: int) -> None:
        self.passes += rows * sum(macs) / self._whole


def _macs(counted: ChannelMap) -> list[int]:
    return [call_macs(counted, index) or 0 for index in range(len(counted.graph.calls))]
