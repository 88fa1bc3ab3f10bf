"""`profile`: what a model costs, as a table of its layers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import repeat

import keras

from saikei.arguments import checked
from saikei.channels import ChannelMap, map_channels
from saikei.codec import ToDict
from saikei.columns import Columns, InColumns
from saikei.costs.counting import call_macs, count_costs, peak_bytes, sample_bytes
from saikei.costs.latency import mean_macs, profiled_latency
from saikei.errors import InputError
from saikei.graph import (
    InputShape,
    Sized,
    Weight,
    open_inputs,
    read,
    sized,
    with_input_shape,
)
from saikei.hub import without_preprocessor
from saikei.limits import BATCH, check_whole
from saikei.models import CascadeModel
from saikei.rules.base import product
from saikei.rules.wrapping import JOINED, STEPS
from saikei.sparsity import is_kernel, meant_zeros

# What is added wherever zeros in kernels are shown.
_NO_FASTER = "a runtime for dense matrices stores and multiplies them, and is no faster for them"


@dataclass(frozen=True)
class LayerProfile:
    """The cost of one call of a layer.

    Args:
        name: The layer's name; a shared layer has one entry for each call.
        kind: The class of the layer, or the name of the operation.
        output_shape: Shape of its first output, batch axis first, at the sizes of the profile.
        params: Number of its parameters; 0 at the later calls of a shared layer.
        macs: Multiply-accumulates per sample; `None` where no rule counts them, or a size is
            unknown.
        activation_bytes: Size of its outputs for one sample, in bytes.
        pinned: Why its channels cannot be cut; `None` where they can, or where it has none.
        zeros: Number of exact zeros in its sparse kernels; 0 at the later calls of a shared
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
class Profile(InColumns, ToDict):
    """What a model costs; printed, it is a table of its layers.

    Args:
        params: Number of parameters; tied ones are counted once.
        macs: Multiply-accumulates per sample of dense and convolutional layers.
        bytes: Size of the weights in the saved file, in bytes.
        memory: The most bytes of activations that are alive at once for one sample when the
            layers run in order, at inference.
        latency: Median milliseconds of one `predict_on_batch`; `None` if not measured.
        batch_size: Number of samples in the batch that the latency is measured on.
        layers: One entry for each call.
        sizes: For each input with axes of unknown size, the shape of a sample, without the batch
            axis, for which MACs, memory and latency are given. Layers whose output's size depends
            on the data have an entry too. An axis is `None` where its size is not known; what
            depends on it is not counted.
        assumed: The names in `sizes` whose shape was assumed, because none was given.
        mean_macs: Mean MACs per sample of a cascade, of which `macs` and `latency` are the
            worst case, in which all members run. `None` for other models, and where it is unknown
            how many rows each member sees.
        mean_latency: Mean milliseconds per batch of a cascade; `None` as for `mean_macs`.
    """

    params: int
    macs: int
    bytes: int
    memory: int
    latency: float | None
    batch_size: int
    layers: tuple[LayerProfile, ...]
    sizes: Mapping[str, tuple[int | None, ...]] = field(default_factory=dict)
    assumed: tuple[str, ...] = ()
    mean_macs: float | None = None
    mean_latency: float | None = None

    @property
    def zeros(self) -> int:
        """Number of exact zeros in sparse kernels; `params` and `macs` include them."""
        return sum(layer.zeros for layer in self.layers)

    @property
    def uncounted(self) -> tuple[str, ...]:
        """Layers that `macs` leaves out: no rule counts their MACs, or a size is unknown."""
        return tuple(layer.name for layer in self.layers if layer.macs is None)

    def _shown(self) -> tuple[Columns, str]:
        rows = [("layer", "kind", "output", "params", "MACs", "pinned")]
        rows += [_row(layer) for layer in self.layers]
        return Columns(rows, right=(3, 4)), self.summary()

    def summary(self) -> str:
        """The totals, on one line."""
        parts = [
            f"{self.params:,} parameters{self._sparse_share()}",
            f"{self.macs:,} MACs per sample{_mean(self.mean_macs, ',.0f')}",
            f"{self.bytes:,} bytes of weights",
            f"{self.memory:,} bytes of activations per sample",
        ]
        if self.latency is not None:
            mean = _mean(self.mean_latency, ".2f")
            parts.append(f"{self.latency:.2f} ms per batch of {self.batch_size}{mean}")
        if self.uncounted:
            parts.append(f"MACs not counted: {', '.join(self.uncounted)}")
        if self.zeros:
            parts.append(f"zeros count in full: {_NO_FASTER}")
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


def _mean(value: float | None, form: str) -> str:
    return "" if value is None else f" at most, {value:{form}} on average"


@checked
def profile(
    model: keras.Model,
    batch_size: int = 32,
    latency: bool = True,
    input_shape: InputShape | None = None,
) -> Profile:
    """Count and measure what a model costs at inference.

    Args:
        model: A built model.
        batch_size: Number of samples in the batch for the latency; it changes nothing else.
        latency: Whether to measure the latency; without it, nothing is run.
        input_shape: For models that take inputs of any size, the shape of a sample without the
            batch axis, as `(224, 224, 3)`; of several inputs a mapping from their names, or one
            for each in their order.

    Returns:
        The profile. Where an input has axes of unknown size and `input_shape` is not given, a
        size is assumed, which the profile shows, and the latency is not measured.

    Raises:
        InputError: When the batch has no sample or more than a million.
        ModelError: When the model cannot be read, or does not take that `input_shape`.
    """
    check_whole("batch_size", batch_size, 1, BATCH, InputError)
    model = without_preprocessor(model)
    graph = read(model)
    if input_shape is not None:
        graph = with_input_shape(graph, input_shape)
    channel_map = map_channels(graph)
    full = sized(graph)
    counted = count_costs(channel_map)
    milliseconds = mean_milliseconds = None
    if latency and not set(open_inputs(graph)) - set(graph.sizes):
        milliseconds, mean_milliseconds = profiled_latency(model, batch_size, full)
    return Profile(
        params=counted.params,
        macs=counted.macs,
        bytes=counted.bytes,
        memory=peak_bytes(channel_map),
        latency=milliseconds,
        batch_size=batch_size,
        layers=_layers(channel_map, full),
        sizes=dict(full.sizes),
        assumed=full.assumed,
        mean_macs=mean_macs(model, full) if isinstance(model, CascadeModel) else None,
        mean_latency=mean_milliseconds,
    )


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
        shapes = [spec.shape for spec in specs]
        layers.append(
            LayerProfile(
                name=operation.name,
                kind=operation.kind,
                output_shape=(*call.outputs[0].shape[:1], *specs[0].steps, *specs[0].shape[1:]),
                params=sum(product(weight.shape) for weight in new.values()),
                macs=call_macs(channel_map, index),
                activation_bytes=sum(map(sample_bytes, call.outputs, shapes, repeat(full.batch))),
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
