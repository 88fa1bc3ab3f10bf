"""What a model costs: parameters, MACs, activation memory and measured latency."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from itertools import repeat
from types import MappingProxyType
from typing import Any

import keras
import numpy as np

from saikei.budget import Budget
from saikei.channels import BoolMask, ChannelMap, map_channels
from saikei.columns import in_columns
from saikei.errors import BudgetError, ModelError
from saikei.graph import (
    Graph,
    InputShape,
    Sized,
    TensorRef,
    TensorSpec,
    Weight,
    open_inputs,
    read,
    sized,
    value_inputs,
    with_input_shape,
)
from saikei.graph.samples import random_values
from saikei.models import CascadeModel
from saikei.rules import CallView, find_rule
from saikei.rules.base import product
from saikei.rules.wrapping import JOINED, STEPS
from saikei.sparsity import is_kernel, meant_zeros

# What zeros in kernels do not do; said wherever they are shown.
NO_FASTER = "a runtime for dense matrices stores and multiplies them, and is no faster for them"


@dataclass(frozen=True)
class LayerProfile:
    """The cost of one call of a layer.

    Args:
        name: the layer's name; a shared layer has one entry for each call.
        kind: its kind.
        output_shape: of its first output, batch axis first; at the sizes of the profile.
        params: its parameters; 0 at the later calls of a shared layer.
        macs: multiply-accumulates per sample; `None` where no rule knows them, or a size is
            unknown.
        activation_bytes: size of its outputs for one sample.
        pinned: why its channels cannot be cut; `None` where they can, or where it has none.
        zeros: exact zeros in kernels of it that are sparse; 0 at the later calls of a shared
            layer.
    """

    name: str
    kind: str
    output_shape: tuple[int | None, ...]
    params: int
    macs: int | None
    activation_bytes: int
    pinned: str | None
    zeros: int = 0


@dataclass(frozen=True)
class Profile:
    """What a model costs; printed, it is a table of its layers.

    Args:
        params: number of parameters, tied ones once.
        macs: multiply-accumulates per sample of dense and convolutional layers.
        activation_bytes: the most bytes of activations that are alive at once for one sample
            when the layers run in order, at inference.
        latency: median milliseconds of one `predict_on_batch`; `None` if not measured.
        batch_size: of the latency.
        layers: one entry for each call.
        sizes: for each input with axes of unknown size, the shape of a sample that MACs, memory
            and latency are of; likewise for layers whose output's size depends on the data. Axes
            are `None` where it is not known; what they would cost is not counted.
        assumed: those of them of which nothing was given.
        expected_macs: for a cascade, where it is known how many rows each member sees: mean MACs
            per sample, as `macs` and `latency` are what they are at worst, when all members run.
        expected_latency: likewise, milliseconds per batch.
    """

    params: int
    macs: int
    activation_bytes: int
    latency: float | None
    batch_size: int
    layers: tuple[LayerProfile, ...]
    sizes: Mapping[str, tuple[int | None, ...]] = field(default_factory=dict)
    assumed: tuple[str, ...] = ()
    expected_macs: float | None = None
    expected_latency: float | None = None

    @property
    def zeros(self) -> int:
        """Exact zeros in sparse kernels; they are among `params`, and multiplied in `macs`."""
        return sum(layer.zeros for layer in self.layers)

    @property
    def uncounted(self) -> tuple[str, ...]:
        """Layers whose MACs no rule knows, or whose size is unknown; they are not in `macs`."""
        return tuple(layer.name for layer in self.layers if layer.macs is None)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)

    def __str__(self) -> str:
        rows = [("layer", "kind", "output", "params", "MACs", "pinned")]
        rows += [_row(layer) for layer in self.layers]
        return f"{in_columns(rows, right=(3, 4))}\n\n{self.summary()}"

    def summary(self) -> str:
        """The totals, on one line."""
        parts = [
            f"{self.params:,} parameters{self._sparse_share()}",
            f"{self.macs:,} MACs per sample{_expected(self.expected_macs, ',.0f')}",
            f"{self.activation_bytes:,} bytes of activations per sample",
        ]
        if self.latency is not None:
            expected = _expected(self.expected_latency, ".2f")
            parts.append(f"{self.latency:.2f} ms per batch of {self.batch_size}{expected}")
        if self.uncounted:
            parts.append(f"MACs not counted: {', '.join(self.uncounted)}")
        if self.zeros:
            parts.append(f"zeros count in full: {NO_FASTER}")
        return "; ".join([*parts, *self.size_notes()])

    def size_notes(self) -> tuple[str, ...]:
        """What was taken for axes of unknown size; empty where all sizes are known."""
        return tuple(
            f"the size of '{name}' is unknown and {self._taken(name, shape)}"
            for name, shape in self.sizes.items()
        )

    def _taken(self, name: str, shape: tuple[int | None, ...]) -> str:
        if None in shape:
            return (
                "could not be assumed, so that not all is counted: give it in "
                f"input_shape={{'{name}': (…)}}"
            )
        if name in self.assumed:
            return f"assumed to be {_times(shape)}: give input_shape for another and for a latency"
        return f"taken to be {_times(shape)}"

    def _sparse_share(self) -> str:
        if not self.zeros:
            return ""
        return f" ({self.zeros:,} of them zero, {self.zeros / self.params:.1%})"


def _times(shape: tuple[int | None, ...]) -> str:
    return "×".join("?" if size is None else str(size) for size in shape) or "1"


def _expected(value: float | None, form: str) -> str:
    return "" if value is None else f" at most, {value:{form}} expected"


def profile(
    model: keras.Model,
    batch_size: int = 32,
    latency: bool = True,
    input_shape: InputShape | None = None,
) -> Profile:
    """Count and measure what a model costs at inference.

    Args:
        model: a built Functional or Sequential model.
        batch_size: batch for the latency, and only for it.
        latency: whether to measure it; counting alone runs nothing.
        input_shape: for models that take inputs of any size, the shape of a sample without the
            batch axis, as `(224, 224, 3)`; of several inputs a mapping from their names, or one
            for each in their order.

    Returns:
        The profile. Where an input has axes of unknown size and `input_shape` is not given, a
        size is assumed, which the profile shows, and the latency is not measured.

    Raises:
        ModelError: when the model cannot be read, or does not take that `input_shape`.
    """
    graph = read(model)
    if input_shape is not None:
        graph = with_input_shape(graph, input_shape)
    channel_map = map_channels(graph)
    full = sized(graph)
    counted = count_costs(channel_map)
    milliseconds = expected_milliseconds = None
    if latency and not set(open_inputs(graph)) - set(graph.sizes):
        milliseconds, expected_milliseconds = _latency(model, batch_size, graph)
    return Profile(
        params=counted.params,
        macs=counted.macs,
        activation_bytes=_peak_bytes(graph, full),
        latency=milliseconds,
        batch_size=batch_size,
        layers=_layers(channel_map, full),
        sizes=dict(full.sizes),
        assumed=full.assumed,
        expected_macs=_expected_macs(model, full) if isinstance(model, CascadeModel) else None,
        expected_latency=expected_milliseconds,
    )


def _latency(model: keras.Model, batch_size: int, graph: Graph) -> tuple[float, float | None]:
    if isinstance(model, CascadeModel):
        return _cascade_latency(model, batch_size, sized(graph))
    return measure_latency(model, batch_size, sizes=graph.sizes), None


def _expected_macs(cascade: CascadeModel, full: Sized) -> float | None:
    if cascade.shares is None:
        return None
    macs = [count_costs(map_channels(member)).macs for member in _members(cascade, full)]
    return float(np.dot(cascade.shares, macs))


def _members(cascade: CascadeModel, full: Sized) -> list[Graph]:
    """The graphs of the members, which take the same inputs under names of their own."""
    graphs = [read(member) for member in cascade.members]
    return [replace(graph, sizes=_renamed(full, graph)) for graph in graphs]


def _renamed(full: Sized, graph: Graph) -> dict[str, tuple[int, ...]]:
    shapes = [full.graph.spec(ref).shape[1:] for ref in full.graph.input_refs()]
    names = [graph.calls[ref.call].operation for ref in graph.input_refs()]
    known = {n: s for n, s in zip(names, shapes, strict=True) if None not in s}
    return {name: tuple(size or 1 for size in shape) for name, shape in known.items()}


def _cascade_latency(
    cascade: CascadeModel, batch_size: int, full: Sized
) -> tuple[float, float | None]:
    """Milliseconds of one batch at worst and as expected: the sum over the members.

    A member that is expected to see less than one row of a batch sees one in so many batches.
    """
    sizes = [graph.sizes for graph in _members(cascade, full)]
    timed = list(zip(cascade.members, sizes, strict=True))
    worst = sum(measure_latency(member, batch_size, sizes=shapes) for member, shapes in timed)
    if cascade.shares is None:
        return worst, None
    expected = 0.0
    for (member, shapes), share in zip(timed, cascade.shares, strict=True):
        rows = share * batch_size
        if rows:
            milliseconds = measure_latency(member, max(1, round(rows)), sizes=shapes)
            expected += min(rows, 1.0) * milliseconds
    return worst, expected


@dataclass(frozen=True)
class Counts:
    """Costs that are counted, not measured; a `saikei.budget.Costs`."""

    params: int
    macs: int
    latency: float | None = None


def count_costs(channel_map: ChannelMap, keep: BoolMask | None = None) -> Counts:
    """Parameters and MACs of a graph, or of what is left of it after a cut, without building.

    Args:
        channel_map: a graph with its channels.
        keep: for each channel, whether it stays; all do when not given.
    """
    macs = params = 0
    seen: set[int] = set()
    graph = channel_map.graph
    for index, call in enumerate(graph.calls):
        operation = graph.operations[call.operation]
        rule = find_rule(operation.kind)
        if rule is None and not operation.weights:
            continue
        macs += call_macs(channel_map, index, keep) or 0
        view = channel_map.view(index, keep)
        for name, weight in operation.weights.items():
            if weight.key not in seen:
                seen.add(weight.key)
                quantised = operation.quantised is not None
                params += product(weight.shape if quantised else view.weights[name])
    return Counts(params, macs)


def call_macs(channel_map: ChannelMap, index: int, keep: BoolMask | None = None) -> int | None:
    """Multiply-accumulates of one call for one sample.

    Args:
        channel_map: a graph with its channels; unknown sizes are those of `saikei.graph.sized`.
        index: of the call.
        keep: for each channel, whether it stays; all do when not given.

    Returns:
        The number; `None` for a layer with weights and no rule, and where a size is unknown.
    """
    operation = channel_map.graph.operations[channel_map.graph.calls[index].operation]
    rule = find_rule(operation.kind)
    if rule is None:
        return None if operation.weights else 0
    view = channel_map.full.view(index, keep)
    macs = rule.macs(view)
    if macs and any(None in shape[1:] for shape in (*view.inputs, *view.outputs)):
        return None
    if macs is None:
        return None
    rows = view.inputs[0][:1] if view.inputs else ()
    # The first axis holds other things than samples where a reshape has joined axes.
    return macs if rows in ((), (None,)) else macs * int(rows[0] or 0) // channel_map.batch


def check_countable(graph: Graph, budget: Budget) -> None:
    """Refuse a budget on MACs that depend on sizes which nothing tells.

    Raises:
        BudgetError: naming a layer.
    """
    if budget.macs is None or not sized(graph).unknown():
        return
    channel_map = map_channels(graph)
    for index in range(len(graph.calls)):
        view = channel_map.full.view(index)
        if _is_counted(view) and call_macs(channel_map, index) is None:
            raise BudgetError(
                f"The budget limits MACs, but layer '{view.operation}' of model '{graph.name}' "
                "works on a size that is unknown, and none could be assumed: give data of the "
                "size that counts, or limit params."
            )


def _is_counted(view: CallView) -> bool:
    rule = find_rule(view.kind)
    return rule is not None and rule.macs(view) is not None


def uncounted_layers(channel_map: ChannelMap) -> tuple[str, ...]:
    """Layers whose MACs no rule knows, or which work on a size that is unknown."""
    calls = enumerate(channel_map.graph.calls)
    unknown = [c.operation for index, c in calls if call_macs(channel_map, index) is None]
    return tuple(dict.fromkeys(unknown))


def measure_latency(
    model: keras.Model,
    batch_size: int = 32,
    repeats: int = 10,
    seconds: float = 2.0,
    sizes: Mapping[str, tuple[int, ...]] = MappingProxyType({}),
) -> float:
    """Median time of `predict_on_batch` on random input, in milliseconds.

    Args:
        model: a built model.
        batch_size: samples in the batch.
        repeats: at least 3 runs and at most this many, after a warm-up that is not counted.
        seconds: no further run is started after this time.
        sizes: for inputs with axes of unknown size, the shape of a sample.

    Raises:
        ModelError: when an input axis other than the batch has no known size.
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
    generator = np.random.default_rng(0)
    arrays: list[np.ndarray] = []
    graph = read(model)
    for ref in graph.input_refs():
        spec = graph.spec(ref)
        name = graph.calls[ref.call].operation
        shape = sizes.get(name, spec.shape[1:])
        if None in shape:
            raise ModelError(
                f"Input '{name}' of model '{model.name}' has an axis of unknown size "
                f"{spec.shape[1:]}, and a latency is measured at one size: give data of that "
                "size, or leave the latency out."
            )
        arrays.append(
            random_values(
                graph, spec.dtype, (batch_size, *(size or 1 for size in shape)), generator
            )
        )
    return keras.tree.pack_sequence_as(graph.inputs, arrays)


def _layers(channel_map: ChannelMap, full: Sized) -> tuple[LayerProfile, ...]:
    graph = channel_map.graph
    pinned = _pinned_layers(channel_map)
    layers: list[LayerProfile] = []
    seen: set[int] = set()
    for index, call in enumerate(graph.calls):
        operation = graph.operations[call.operation]
        if operation.kind in (STEPS, JOINED):
            continue
        new = {name: w for name, w in operation.weights.items() if w.key not in seen}
        seen.update(weight.key for weight in new.values())
        specs = full.graph.calls[index].outputs
        layers.append(
            LayerProfile(
                name=operation.name,
                kind=operation.kind,
                output_shape=(*call.outputs[0].shape[:1], *specs[0].steps, *specs[0].shape[1:]),
                params=sum(product(weight.shape) for weight in new.values()),
                macs=call_macs(channel_map, index),
                activation_bytes=sum(map(_bytes, call.outputs, specs, repeat(full.batch))),
                pinned=pinned.get(operation.name),
                zeros=0
                if operation.quantised
                else sum(_zeros(name, weight) for name, weight in new.items()),
            )
        )
    return tuple(layers)


def _zeros(name: str, weight: Weight) -> int:
    zeros = meant_zeros(weight.numpy()) if is_kernel(name, weight.shape) else None
    return 0 if zeros is None else int(zeros.sum())


def _pinned_layers(channel_map: ChannelMap) -> dict[str, str]:
    """Layers that make channels none of which can be cut, and layers without a rule."""
    reasons = dict(channel_map.unknown)
    for group in channel_map.groups:
        if group.pinned is not None:
            for layer in group.blocks:
                reasons.setdefault(layer, group.pinned)
    return reasons


def _bytes(spec: TensorSpec, full: TensorSpec, batch: int) -> int:
    """Size of one sample of a tensor, whose first axis may hold more than samples."""
    rows = full.shape[0] if spec.shape[:1] == (None,) else None
    return full.bytes_per_sample() * (rows or batch) // batch


def _peak_bytes(graph: Graph, full: Sized) -> int:
    """The largest sum of live tensors while the calls run in order."""
    # The ends of a `TimeDistributed` show a tensor with other axes, and hold none of their own.
    same: dict[TensorRef, TensorRef] = {}
    last_use: dict[TensorRef, int] = {}
    for index, call in enumerate(graph.calls):
        operation = graph.operations[call.operation]
        refs = [same.get(ref, ref) for ref in value_inputs(operation, call)]
        last_use.update(dict.fromkeys(refs, index))
        if operation.kind in (STEPS, JOINED):
            same[TensorRef(index, 0)] = refs[0]
    end = len(graph.calls)
    last_use.update({same.get(ref, ref): end for ref in graph.output_refs()})
    freed: dict[int, int] = {}
    live = peak = 0
    for index, call in enumerate(graph.calls):
        for position, spec in enumerate(call.outputs):
            if TensorRef(index, position) in same:
                continue
            size = _bytes(spec, full.graph.calls[index].outputs[position], full.batch)
            live += size
            use = last_use.get(TensorRef(index, position), index)
            freed[use] = freed.get(use, 0) + size
        peak = max(peak, live)
        live -= freed.get(index, 0)
    return peak


def _row(layer: LayerProfile) -> tuple[str, str, str, str, str, str]:
    shape = layer.output_shape[1:]
    macs = "not counted" if layer.macs is None else f"{layer.macs:,}"
    return (
        layer.name,
        layer.kind,
        _times(shape) if shape else "",
        f"{layer.params:,}",
        macs,
        layer.pinned or "",
    )
