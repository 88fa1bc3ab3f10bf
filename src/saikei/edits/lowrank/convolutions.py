"""Convolutions as two thinner ones: by channels, by axes, or depthwise and pointwise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from saikei.edits.lowrank.spectrum import Array, Spectrum
from saikei.edits.lowrank.split import (
    CallShapes,
    Chain,
    Split,
    Splits,
    changed,
    linear_settings,
    positions,
    shapes_of_calls,
    why_not_split,
)
from saikei.graph import Graph, Operation
from saikei.rules.base import Shape, product


@dataclass(frozen=True)
class _Conv:
    """A convolution laid out for splitting.

    Args:
        operation: The convolution.
        config: The settings of the layer.
        kernel: Its kernel, `(*window, in / groups, out)`.
        calls: The inputs and outputs of its calls.
    """

    operation: Operation
    config: dict[str, Any]
    kernel: Array
    calls: list[CallShapes]

    @property
    def window(self) -> tuple[int, ...]:
        return tuple(self.kernel.shape[:-2])

    @property
    def groups(self) -> int:
        return int(self.config.get("groups") or 1)

    @property
    def given(self) -> int:
        """Input channels, of all groups."""
        return int(self.kernel.shape[-2] * self.groups)

    @property
    def made(self) -> int:
        return int(self.kernel.shape[-1])

    @property
    def channel_axis(self) -> int:
        return 1 if self.config["data_format"] == "channels_first" else -1

    def by_group(self) -> Array:
        """The kernel as `(groups, *window, in / groups, out / groups)`."""
        shape = (*self.kernel.shape[:-1], self.groups, self.made // self.groups)
        return np.moveaxis(self.kernel.reshape(shape), -2, 0)

    def positions_made(self) -> int:
        return sum(positions(call, self.channel_axis) for call in self.calls)

    def axis_settings(self, kept: slice) -> dict[str, Any]:
        """Window, strides and dilation on some of the axes, and 1 on the others."""
        settings = {}
        for key, whole in (
            ("kernel_size", self.window),
            ("strides", self.config["strides"]),
            ("dilation_rate", self.config["dilation_rate"]),
        ):
            chosen = [1] * len(self.window)
            chosen[kept] = _per_axis(whole, len(self.window))[kept]
            settings[key] = tuple(chosen)
        return settings


def split_conv(graph: Graph, operation: Operation, scheme: str = "auto") -> Splits | str:
    """A convolution as two, of a rank to choose: see `Factorize` for the schemes."""
    conv = _read(graph, operation)
    if isinstance(conv, str):
        return conv
    schemes = []
    if scheme in ("auto", "channel"):
        schemes.append(_by_channel(conv))
    if scheme in ("auto", "spatial") and conv.window[0] > 1 and product(conv.window[1:]) > 1:
        schemes.append(_by_axis(conv))
    if not schemes:
        window = "×".join(map(str, conv.window))
        return f"has a window of {window}, which has not two axes to split between"
    macs = conv.positions_made() * conv.kernel.size
    return Splits(operation.name, conv.kernel.size, macs, tuple(schemes))


def _read(graph: Graph, operation: Operation) -> _Conv | str:
    reason = why_not_split(graph, operation, "kernel")
    if reason is not None:
        return reason
    kernel = operation.weights["kernel"].numpy()
    calls = shapes_of_calls(graph, operation.name)
    return _Conv(operation, dict(operation.config or {}), kernel, calls)


def _by_channel(conv: _Conv) -> Split:
    """The whole window to `rank` channels, then 1×1 to all (Zhang et al., 2016).

    In a grouped convolution the rank is that of each group.
    """
    matrices = conv.by_group().reshape(conv.groups, -1, conv.made // conv.groups)
    spectrum = Spectrum(matrices)

    def chain(first: str, rank: int) -> Chain:
        left, right = spectrum.factors(rank)
        into = np.moveaxis(left, 0, 1).reshape(*conv.kernel.shape[:-1], conv.groups * rank)
        out = np.moveaxis(right, 0, 1).reshape(*(1,) * len(conv.window), rank, conv.made)
        basis = {**linear_settings(conv.config), "filters": conv.groups * rank}
        return (
            changed(conv.operation, first, basis, {"kernel": into}),
            _last(conv, conv.axis_settings(slice(0, 0)), out),
        )

    params = product(conv.window) * conv.given + conv.made
    return Split("channel", spectrum, params, conv.positions_made() * params, chain)


def _by_axis(conv: _Conv) -> Split:
    """The first axis of the window to `rank` channels, then the others to all.

    Jaderberg et al., "Speeding up Convolutional Neural Networks with Low Rank Expansions", 2014.
    """
    by_group = conv.by_group()
    axes = len(conv.window)
    # (groups, first axis, in / groups, other axes, out / groups)
    order = (0, 1, axes + 1, *range(2, axes + 1), axes + 2)
    rows = conv.window[0] * conv.kernel.shape[-2]
    spectrum = Spectrum(np.transpose(by_group, order).reshape(conv.groups, rows, -1))
    ones = (1,) * (axes - 1)

    def chain(first: str, rank: int) -> Chain:
        left, right = spectrum.factors(rank)
        into = left.reshape(conv.groups, conv.window[0], *ones, conv.kernel.shape[-2], rank)
        into = np.moveaxis(into, 0, -2).reshape(*into.shape[1:-1], conv.groups * rank)
        out = right.reshape(conv.groups, rank, *conv.window[1:], conv.made // conv.groups)
        out = np.moveaxis(out, (0, 1), (-2, -3)).reshape(1, *conv.window[1:], rank, conv.made)
        basis = {**linear_settings(conv.config), "filters": conv.groups * rank}
        return (
            changed(
                conv.operation,
                first,
                {**basis, **conv.axis_settings(slice(0, 1))},
                {"kernel": into},
            ),
            _last(conv, conv.axis_settings(slice(1, None)), out),
        )

    first_params = conv.window[0] * conv.given
    last_params = product(conv.window[1:]) * conv.made
    between = sum(
        call.rows * product(_after_first_axis(call, conv.channel_axis)) for call in conv.calls
    )
    macs = between * first_params + conv.positions_made() * last_params
    return Split("spatial", spectrum, first_params + last_params, macs, chain)


def _after_first_axis(call: CallShapes, channel_axis: int) -> Shape:
    """Positions once the first axis is convolved and the others are not yet."""
    given, made = list(call.given.shape), list(call.made.shape)
    del given[channel_axis], made[channel_axis]
    return (made[1], *given[2:])


def split_depthwise(graph: Graph, operation: Operation) -> Splits | str:
    """A convolution as a depthwise one and a pointwise one; the rank is the depth multiplier.

    For each input channel, the kernel is a matrix (window, out), and `rank` filters with their
    pointwise weights are a product of that rank: the truncated decomposition is the closest.
    """
    conv = _read(graph, operation)
    if isinstance(conv, str):
        return conv
    reason = _why_not_depthwise(conv)
    if reason is not None:
        return reason
    axes = len(conv.window)
    matrices = np.moveaxis(conv.kernel, -2, 0).reshape(conv.given, -1, conv.made)
    spectrum = Spectrum(matrices)
    cls = {1: keras.layers.DepthwiseConv1D, 2: keras.layers.DepthwiseConv2D}[axes]

    def chain(first: str, rank: int) -> Chain:
        left, right = spectrum.factors(rank)
        into = np.moveaxis(left, 0, 1).reshape(*conv.window, conv.given, rank)
        out = right.reshape(*(1,) * axes, conv.given * rank, conv.made)
        shared = ("kernel_size", "strides", "padding", "data_format", "dilation_rate", "dtype")
        basis = {key: conv.config[key] for key in shared}
        basis |= {"depth_multiplier": rank, "use_bias": False}
        basis["depthwise_regularizer"] = conv.config.get("kernel_regularizer")
        return (
            changed(conv.operation, first, basis, {"kernel": into}, cls),
            _last(conv, conv.axis_settings(slice(0, 0)), out),
        )

    per_rank = conv.given * (product(conv.window) + conv.made)
    split = Split("depthwise", spectrum, per_rank, conv.positions_made() * per_rank, chain)
    macs = conv.positions_made() * conv.kernel.size
    return Splits(operation.name, conv.kernel.size, macs, (split,))


def _why_not_depthwise(conv: _Conv) -> str | None:
    if product(conv.window) == 1:
        return "is pointwise already"
    if len(conv.window) > 2:
        return f"slides over {len(conv.window)} axes: Keras has depthwise layers for 1 and 2"
    if conv.groups > 1:
        return f"has {conv.groups} groups, so it is partly separated already"
    if conv.config["padding"] == "causal":
        return "has causal padding, which depthwise layers do not"
    strides = _per_axis(conv.config["strides"], len(conv.window))
    if len(set(strides)) > 1:
        return f"has strides {tuple(strides)}, and depthwise layers take equal ones"
    return None


def _last(conv: _Conv, settings: dict[str, Any], kernel: Array) -> Operation:
    """The second factor: it keeps the name, the bias and the activation."""
    config = {**conv.config, **settings}
    padding = {"padding": "valid"} if product(kernel.shape[:-2]) == 1 else {}
    return changed(conv.operation, conv.operation.name, {**config, **padding}, {"kernel": kernel})


def _per_axis(value: Any, axes: int) -> list[int]:
    return [int(value)] * axes if isinstance(value, int) else [int(v) for v in value]
