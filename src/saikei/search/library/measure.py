"""Measure options: apply, refit what is near, and compute what comes behind the change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras
from keras import tree

from saikei.calibration.run import Layers, Run
from saikei.calibration.surviving_outputs import Kept, both_kept
from saikei.channels import ChannelMap, map_channels
from saikei.costs import call_macs, count_costs
from saikei.edits.options import Option
from saikei.errors import SaikeiError, in_one_line
from saikei.graph import Graph, read
from saikei.scoring import Task
from saikei.scoring.labels import Labels
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
    channel_map: ChannelMap


def measure_site(shared: Shared, task: SiteTask) -> SiteResult:
    """Measure the choices of a task.

    Args:
        shared: The model and the rows.
        task: The choices.
    """
    graph = replace(read(shared.model), sizes=dict(shared.sizes))
    found: dict[int, Measured | LeftOut] = {}
    variants: list[_Variant] = []
    for number, choice in enumerate(task.choices):
        try:
            variants.append(_applied(graph, number, choice))
        except SaikeiError as error:
            found[number] = LeftOut(choice[-1], in_one_line(error))
    original = _Original(graph, shared)
    for variant in sorted(variants, key=lambda one: one.at):
        option = task.choices[variant.number][-1]
        try:
            loss, error_of_loss = original.measure(variant)
        except SaikeiError as error:
            found[variant.number] = LeftOut(option, in_one_line(error))
            continue
        costs = count_costs(variant.channel_map)
        found[variant.number] = Measured(option, loss, error_of_loss, costs)
    return SiteResult(tuple(found[number] for number in range(len(task.choices))), original.passes)


def _applied(graph: Graph, number: int, choice: Sequence[Option]) -> _Variant:
    changed, kept = graph, dict[str, Any]()
    for option in choice:
        changed, own = option.edit.unfitted(changed)
        kept = dict(both_kept(kept, own))
    changed = replace(changed, sizes=graph.sizes)
    return _Variant(number, changed, kept, first_difference(graph, changed), map_channels(changed))


class _Original:
    """The original on all rows, run as far as the change that is measured."""

    def __init__(self, graph: Graph, shared: Shared) -> None:
        self._graph, self._shared = graph, shared
        layers = Layers(graph)
        self._layers = layers
        self._run = Run(graph, shared.inputs, layers=layers)
        fit = tree.map_structure(lambda leaf: leaf[: shared.fit], shared.inputs)
        self._targets = Targets(graph, fit, layers)
        self._next = 0
        self._macs = _macs(map_channels(graph))
        self._whole = max(1, sum(self._macs))
        self._outputs: list[Any] = []
        self.passes = 0.0

    @property
    def _rows(self) -> int:
        return len(tree.flatten(self._shared.inputs)[0])

    def measure(self, variant: _Variant) -> tuple[float, float]:
        given = self._given()
        self._until(variant.at)
        self._targets.forget(variant.at)
        samples = samples_to_fit(variant.graph, variant.at, self._shared.fit)
        fit, held = slice(0, samples), slice(self._shared.fit, None)
        macs = _macs(variant.channel_map)
        refitted = refit_nearby(self._fork(variant, fit), self._start, variant.kept, self._targets)
        self._count(macs[self._start : self._start + refitted.calls], samples)
        run = self._fork(replace(variant, graph=refitted.graph), held)
        outputs = run.outputs(self._start)
        self._count(macs[self._start :], run.samples)
        return divergence(outputs, given, self._shared.tasks, self._shared.labels)

    def _until(self, index: int) -> None:
        self._count(self._macs[self._next : index], self._rows)
        while self._next < index:
            self._run.advance(self._next)
            self._next += 1

    def _fork(self, variant: _Variant, rows: slice) -> Run:
        """A run of a variant from its change on, or from the beginning where it has to be."""
        self._start = variant.at
        if self._next == variant.at:
            run = self._run.fork(variant.graph, variant.at, rows)
            if run is not None:
                return run
        self._start = 0
        given = tree.map_structure(lambda leaf: leaf[rows], self._shared.inputs)
        return Run(variant.graph, given, variant.graph.output_refs(), self._layers)

    def _given(self) -> list[Any]:
        """The original's outputs on the rows that losses are measured on."""
        if not self._outputs:
            given = tree.map_structure(lambda leaf: leaf[self._shared.fit :], self._shared.inputs)
            run = Run(self._graph, given, self._graph.output_refs(), self._layers)
            self._outputs = run.outputs(0)
            self._count(self._macs, run.samples)
        return self._outputs

    def _count(self, macs: Sequence[int], rows: int) -> None:
        self.passes += rows * sum(macs) / self._whole


def _macs(channel_map: ChannelMap) -> list[int]:
    return [call_macs(channel_map, index) or 0 for index in range(len(channel_map.graph.calls))]
