"""What a model costs: parameters, MACs, activation memory and measured latency."""

from __future__ import annotations

import statistics
import time
from dataclasses import asdict, dataclass
from typing import Any

import keras
import numpy as np

from saikei.channels import BoolMask, ChannelMap, map_channels
from saikei.columns import in_columns
from saikei.errors import ModelError
from saikei.graph import Graph, Weight, read
from saikei.models import CascadeModel
from saikei.rules import find_rule
from saikei.rules.base import product
from saikei.sparsity import is_kernel, meant_zeros

# What zeros in kernels do not do; said wherever they are shown.
NO_FASTER = "a runtime for dense matrices stores and multiplies them, and is no faster for them"


@dataclass(frozen=True)
class LayerProfile:
    """The cost of one call of a layer.

    Args:
        name: the layer's name; a shared layer has one entry for each call.
        kind: its kind.
        output_shape: of its first output, batch axis first.
        params: its parameters; 0 at the later calls of a shared layer.
        macs: multiply-accumulates per sample; `None` where no rule knows them.
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
    expected_macs: float | None = None
    expected_latency: float | None = None

    @property
    def zeros(self) -> int:
        """Exact zeros in sparse kernels; they are among `params`, and multiplied in `macs`."""
        return sum(layer.zeros for layer in self.layers)

    @property
    def uncounted(self) -> tuple[str, ...]:
        """Layers with weights whose MACs no rule knows; they are not in `macs`."""
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
        return "; ".join(parts)

    def _sparse_share(self) -> str:
        if not self.zeros:
            return ""
        return f" ({self.zeros:,} of them zero, {self.zeros / self.params:.1%})"


def _expected(value: float | None, form: str) -> str:
    return "" if value is None else f" at most, {value:{form}} expected"


def profile(model: keras.Model, batch_size: int = 32, latency: bool = True) -> Profile:
    """Count and measure what a model costs at inference.

    Args:
        model: a built Functional or Sequential model.
        batch_size: batch for the latency, and only for it.
        latency: whether to measure it; counting alone runs nothing.

    Returns:
        The profile. Axes of unknown size count as 1, so give the model's input a full shape
        for counts that mean something.

    Raises:
        ModelError: when the model cannot be read, or its latency cannot be measured because
            an input axis other than the batch is unknown.
    """
    channel_map = map_channels(read(model))
    counted = count_costs(channel_map)
    milliseconds = expected_milliseconds = None
    if latency and isinstance(model, CascadeModel):
        milliseconds, expected_milliseconds = _cascade_latency(model, batch_size)
    elif latency:
        milliseconds = measure_latency(model, batch_size)
    return Profile(
        params=counted.params,
        macs=counted.macs,
        activation_bytes=_peak_bytes(channel_map.graph),
        latency=milliseconds,
        batch_size=batch_size,
        layers=_layers(channel_map),
        expected_macs=_expected_macs(model) if isinstance(model, CascadeModel) else None,
        expected_latency=expected_milliseconds,
    )


def _expected_macs(cascade: CascadeModel) -> float | None:
    if cascade.shares is None:
        return None
    macs = [count_costs(map_channels(read(member))).macs for member in cascade.members]
    return float(np.dot(cascade.shares, macs))


def _cascade_latency(cascade: CascadeModel, batch_size: int) -> tuple[float, float | None]:
    """Milliseconds of one batch at worst and as expected: the sum over the members.

    A member that is expected to see less than one row of a batch sees one in so many batches.
    """
    worst = sum(measure_latency(member, batch_size) for member in cascade.members)
    if cascade.shares is None:
        return worst, None
    expected = 0.0
    for member, share in zip(cascade.members, cascade.shares, strict=True):
        rows = share * batch_size
        if rows:
            expected += min(rows, 1.0) * measure_latency(member, max(1, round(rows)))
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
        view = channel_map.view(index, keep)
        macs += rule.macs(view) if rule is not None else 0
        for name, weight in operation.weights.items():
            if weight.key not in seen:
                seen.add(weight.key)
                quantised = operation.quantised is not None
                params += product(weight.shape if quantised else view.weights[name])
    return Counts(params, macs)


def uncounted_layers(graph: Graph) -> tuple[str, ...]:
    """Layers with weights whose MACs no rule knows."""
    operations = graph.operations.values()
    return tuple(o.name for o in operations if o.weights and find_rule(o.kind) is None)


def measure_latency(
    model: keras.Model, batch_size: int = 32, repeats: int = 10, seconds: float = 2.0
) -> float:
    """Median time of `predict_on_batch` on random input, in milliseconds.

    Args:
        model: a built model.
        batch_size: samples in the batch.
        repeats: at least 3 runs and at most this many, after a warm-up that is not counted.
        seconds: no further run is started after this time.

    Raises:
        ModelError: when an input axis other than the batch has no known size.
    """
    batch = _random_batch(model, batch_size)
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


def _random_batch(model: keras.Model, batch_size: int) -> Any:
    generator = np.random.default_rng(0)
    arrays: list[np.ndarray] = []
    graph = read(model)
    for ref in graph.input_refs():
        spec = graph.spec(ref)
        shape = spec.shape[1:]
        if None in shape:
            name = graph.calls[ref.call].operation
            raise ModelError(
                f"Input '{name}' of model '{model.name}' has an axis of unknown size "
                f"{shape}: build it with full shapes to measure latency, or pass latency=False."
            )
        values = generator.random((batch_size, *(size or 1 for size in shape)))
        arrays.append(values.astype(spec.dtype))
    return keras.tree.pack_sequence_as(graph.inputs, arrays)


def _layers(channel_map: ChannelMap) -> tuple[LayerProfile, ...]:
    graph = channel_map.graph
    pinned = _pinned_layers(channel_map)
    layers: list[LayerProfile] = []
    seen: set[int] = set()
    for index, call in enumerate(graph.calls):
        operation = graph.operations[call.operation]
        rule = find_rule(operation.kind)
        new = {name: w for name, w in operation.weights.items() if w.key not in seen}
        seen.update(weight.key for weight in new.values())
        unknown = rule is None and bool(operation.weights)
        layers.append(
            LayerProfile(
                name=operation.name,
                kind=operation.kind,
                output_shape=call.outputs[0].shape,
                params=sum(product(weight.shape) for weight in new.values()),
                macs=None if unknown else rule.macs(channel_map.view(index)) if rule else 0,
                activation_bytes=sum(spec.bytes_per_sample() for spec in call.outputs),
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


def _peak_bytes(graph: Graph) -> int:
    """The largest sum of live tensors while the calls run in order."""
    last_use: dict[tuple[int, int], int] = {}
    for index, call in enumerate(graph.calls):
        for ref in call.inputs():
            last_use[(ref.call, ref.output)] = index
    end = len(graph.calls)
    for ref in graph.output_refs():
        last_use[(ref.call, ref.output)] = end
    freed: dict[int, int] = {}
    live = peak = 0
    for index, call in enumerate(graph.calls):
        for position, spec in enumerate(call.outputs):
            live += spec.bytes_per_sample()
            use = last_use.get((index, position), index)
            freed[use] = freed.get(use, 0) + spec.bytes_per_sample()
        peak = max(peak, live)
        live -= freed.get(index, 0)
    return peak


def _row(layer: LayerProfile) -> tuple[str, str, str, str, str, str]:
    shape = "×".join("?" if size is None else str(size) for size in layer.output_shape[1:])
    macs = "not counted" if layer.macs is None else f"{layer.macs:,}"
    return (layer.name, layer.kind, shape, f"{layer.params:,}", macs, layer.pinned or "")
