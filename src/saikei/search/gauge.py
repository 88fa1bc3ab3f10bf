"""`Gauge`: measures the costs of models, all for the same size of inputs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import keras

from saikei.budget import BATCH_SIZE
from saikei.calibration.sizes import sizes_of
from saikei.costs import Profile, profile
from saikei.graph import Graph, read, sized
from saikei.runs.candidate import Cost


@dataclass(frozen=True)
class Gauge:
    """How costs are measured: at the same size for all models, with or without latency.

    Args:
        inputs: Shape of a sample of each input, by its key in the dictionary of inputs or by its
            position; empty if the models define it.
        layers: Shape of a sample for each layer whose output size depends on the data, by name.
        latency: Whether to measure the latency.
        batch_size: Samples in the batch that is timed.
    """

    inputs: Mapping[str | int, tuple[int, ...]] = field(default_factory=dict)
    layers: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    latency: bool = True
    batch_size: int = BATCH_SIZE

    @classmethod
    def of(
        cls,
        models: Iterable[keras.Model],
        data: Any,
        latency: bool,
        batch_size: int = BATCH_SIZE,
    ) -> Gauge:
        """A gauge at the size of the data, if a model takes inputs of any size."""
        inputs: dict[str | int, tuple[int, ...]] = {}
        layers: dict[str, tuple[int, ...]] = {}
        for model in models:
            graph = read(model)
            if sized(graph).sizes:
                sizes = sizes_of(graph, data, model)
                inputs = {key: sizes.pop(name) for name, key in _inputs(graph)} | inputs
                layers = sizes | layers
        return cls(inputs, layers, latency, batch_size)

    def sizes(self, model: keras.Model) -> dict[str, tuple[int, ...]]:
        """Shape of a sample for each input and layer whose size the model leaves open."""
        graph = read(model)
        shapes = {name: self.inputs[key] for name, key in _inputs(graph) if key in self.inputs}
        return {n: s for n, s in {**shapes, **self.layers}.items() if n in sized(graph).sizes}

    def profile(self, model: keras.Model) -> Profile:
        """Costs of a model, layer by layer."""
        return profile(model, self.batch_size, self.latency, self.sizes(model) or None)

    def cost(self, model: keras.Model) -> Cost:
        """Total costs of a model, as a record."""
        return cost_record(self.profile(model))


def _inputs(graph: Graph) -> list[tuple[str, str | int]]:
    """The layer of each input, and its key in the dictionary of inputs, or its position."""
    names = [graph.calls[ref.call].operation for ref in graph.input_refs()]
    # Keras flattens dictionaries by sorted keys.
    keyed = isinstance(graph.inputs, dict) and len(graph.inputs) == len(names)
    keys = sorted(graph.inputs) if keyed else range(len(names))
    return list(zip(names, keys, strict=True))


def cost_record(measured: Profile) -> Cost:
    """The totals of a profile, as a record."""
    return Cost(
        params=measured.params,
        macs=measured.macs,
        bytes=measured.bytes,
        memory=measured.memory,
        latency=measured.latency,
        batch_size=measured.batch_size,
        mean_macs=measured.mean_macs,
        mean_latency=measured.mean_latency,
    )
