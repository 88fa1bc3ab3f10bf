"""How long a model takes for a batch, measured."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import keras
import numpy as np

from saikei.channels import ChannelMap
from saikei.costs.counting import count_costs
from saikei.errors import ModelError
from saikei.graph import Graph, Sized, open_inputs, read
from saikei.graph.samples import random_inputs
from saikei.models import CascadeModel


def measure_latency(
    model: keras.Model,
    batch_size: int = 32,
    repeats: int = 10,
    seconds: float = 2.0,
    sizes: Mapping[str, tuple[int, ...]] = MappingProxyType({}),
) -> float:
    """Median time of `predict_on_batch` on random input, in milliseconds.

    Args:
        model: A built model.
        batch_size: Samples in the batch.
        repeats: The largest number of runs; there are at least 3, after a warm-up that is not
            counted.
        seconds: No further run is started after this time.
        sizes: For inputs with axes of unknown size, the shape of a sample.

    Raises:
        ModelError: When an input axis other than the batch has no known size.
    """
    batch = _random_batch(model, batch_size, sizes)
    # Compiling happens here. A private copy of the compiled function is not needed: Keras
    # keeps predict functions apart from training state.
    model.predict_on_batch(batch)
    times: list[float] = []
    started = time.perf_counter()
    while len(times) < 3 or (len(times) < repeats and time.perf_counter() - started < seconds):
        before = time.perf_counter()
        model.predict_on_batch(batch)
        times.append(1000 * (time.perf_counter() - before))
    return statistics.median(times)


def _random_batch(model: keras.Model, batch_size: int, sizes: Mapping[str, tuple[int, ...]]) -> Any:
    graph = read(model)
    for name, shape in open_inputs(graph).items():
        if name not in sizes:
            raise ModelError(
                f"Input '{name}' of model '{model.name}' has an axis of unknown size {shape}, and "
                "a latency is measured at one size: give data of that size, or leave the latency "
                "out."
            )
    return random_inputs(graph, batch_size, np.random.default_rng(0), sizes=sizes)


def profiled_latency(
    model: keras.Model, batch_size: int, full: Sized
) -> tuple[float, float | None]:
    """Milliseconds of one batch: at worst, and on average for a cascade.

    Returns:
        The latency, which for a cascade is that of a batch for which all members run, and the mean
        when each member sees its known share of the rows; `None` for the second
        where the model is no cascade or the shares are unknown.
    """
    if not isinstance(model, CascadeModel):
        return measure_latency(model, batch_size, sizes=full.graph.sizes), None
    sizes = [graph.sizes for graph in _members(model, full)]
    timed = list(zip(model.members, sizes, strict=True))
    worst = sum(measure_latency(member, batch_size, sizes=shapes) for member, shapes in timed)
    if model.shares is None:
        return worst, None
    mean = 0.0
    for (member, shapes), share in zip(timed, model.shares, strict=True):
        # A member that sees less than one row of a batch sees one in so many batches.
        rows = share * batch_size
        if rows:
            milliseconds = measure_latency(member, max(1, round(rows)), sizes=shapes)
            mean += min(rows, 1.0) * milliseconds
    return worst, mean


def mean_macs(cascade: CascadeModel, full: Sized) -> float | None:
    """Mean MACs per sample of a cascade; `None` where the rows that members see are unknown."""
    if cascade.shares is None:
        return None
    macs = [count_costs(ChannelMap.of_whole(member)).macs for member in _members(cascade, full)]
    return float(np.dot(cascade.shares, macs))


def _members(cascade: CascadeModel, full: Sized) -> list[Graph]:
    """The graphs of the members, which take the same inputs under names of their own."""
    shapes = [full.graph.spec(ref).shape[1:] for ref in full.graph.input_refs()]
    graphs = []
    for graph in map(read, cascade.members):
        names = [graph.calls[ref.call].operation for ref in graph.input_refs()]
        sizes = {
            name: tuple(size for size in shape if size is not None)
            for name, shape in zip(names, shapes, strict=True)
            if None not in shape
        }
        graphs.append(replace(graph, sizes=sizes))
    return graphs
