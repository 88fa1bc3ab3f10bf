"""Convolutions: plain, grouped, transposed, depthwise and separable, in 1 to 3 dimensions."""

from __future__ import annotations

import numpy as np

from saikei.rules.activations import activation_pins
from saikei.rules.base import CallView, Rule, Shape, channel_axis, on_axis, product
from saikei.rules.labels import (
    Flow,
    Labels,
    LabelSource,
    Pin,
    Tie,
    Vector,
    bind_blocks,
    labelled,
)

OTHER_AXIS = "a convolution or pooling slides over this axis"


def pins_off_axis(labels: Labels, axis: int, reason: str = OTHER_AXIS) -> tuple[Pin, ...]:
    """Pins for every labelled axis but one."""
    return tuple(Pin(vector, reason) for position, vector in labelled(labels) if position != axis)


def _with_bias(call: CallView, weights: dict[str, Labels], out: Vector | None) -> dict[str, Labels]:
    return {**weights, "bias": (out,)} if "bias" in call.weights else weights


def _conv(call: CallView, inputs: tuple[Labels, ...], source: LabelSource) -> Flow:
    rank = len(call.inputs[0])
    axis = channel_axis(call, rank)
    given = inputs[0][axis]
    out = source.fresh(int(call.config["filters"]), call.operation)
    groups = int(call.config.get("groups") or 1)
    ties: tuple[Tie, ...] = ()
    pins = pins_off_axis(inputs[0], axis) + activation_pins(call, out)
    sizes: dict[str, object] = {"filters": out}
    spatial: Labels = (None,) * (rank - 2)
    if groups == 1:
        kernel: Labels = (*spatial, given, out)
    else:
        # Only whole groups can go: the channels that one group reads and those that it makes.
        kernel = (*spatial, None, out)
        first_out = out[:: len(out) // groups]
        sizes["groups"] = first_out
        if given is None:
            pins += (Pin(out, "a grouped convolution of channels that cannot be cut"),)
        else:
            first_in = given[:: len(given) // groups]
            ties = (*bind_blocks(out, groups), *bind_blocks(given, groups))
            ties = (*ties, Tie(first_in, first_out))
    return Flow(
        outputs=(on_axis(rank, axis, out),),
        weights=_with_bias(call, {"kernel": kernel}, out),
        sizes=sizes,
        ties=ties,
        pins=pins,
    )


def _conv_transpose(call: CallView, inputs: tuple[Labels, ...], source: LabelSource) -> Flow:
    rank = len(call.inputs[0])
    axis = channel_axis(call, rank)
    out = source.fresh(int(call.config["filters"]), call.operation)
    kernel: Labels = (*(None,) * (rank - 2), out, inputs[0][axis])
    return Flow(
        outputs=(on_axis(rank, axis, out),),
        weights=_with_bias(call, {"kernel": kernel}, out),
        sizes={"filters": out},
        pins=pins_off_axis(inputs[0], axis) + activation_pins(call, out),
    )


def _depthwise(call: CallView, inputs: tuple[Labels, ...], source: LabelSource) -> Flow:
    rank = len(call.inputs[0])
    axis = channel_axis(call, rank)
    given = inputs[0][axis]
    spatial: Labels = (None,) * (rank - 2)
    # Output channel c·m + i reads input channel c alone, so it goes with it.
    out = None if given is None else np.repeat(given, int(call.config["depth_multiplier"]))
    pins = pins_off_axis(inputs[0], axis)
    if out is not None:
        pins += activation_pins(call, out)
    return Flow(
        outputs=(on_axis(rank, axis, out),),
        weights=_with_bias(call, {"kernel": (*spatial, given, None)}, out),
        pins=pins,
    )


def _separable(call: CallView, inputs: tuple[Labels, ...], source: LabelSource) -> Flow:
    rank = len(call.inputs[0])
    axis = channel_axis(call, rank)
    given = inputs[0][axis]
    middle = None if given is None else np.repeat(given, int(call.config["depth_multiplier"]))
    out = source.fresh(int(call.config["filters"]), call.operation)
    spatial: Labels = (None,) * (rank - 2)
    weights: dict[str, Labels] = {
        "depthwise_kernel": (*spatial, given, None),
        "pointwise_kernel": (*spatial, middle, out),
    }
    return Flow(
        outputs=(on_axis(rank, axis, out),),
        weights=_with_bias(call, weights, out),
        sizes={"filters": out},
        pins=pins_off_axis(inputs[0], axis) + activation_pins(call, out),
    )


def _positions(call: CallView, shape: Shape) -> int:
    axis = channel_axis(call, len(shape))
    return product(tuple(s for position, s in enumerate(shape) if position not in (0, axis)))


def _conv_macs(call: CallView) -> int:
    return _positions(call, call.outputs[0]) * product(call.weights["kernel"])


def _transpose_macs(call: CallView) -> int:
    # Every input position is multiplied with the whole kernel.
    return _positions(call, call.inputs[0]) * product(call.weights["kernel"])


def _separable_macs(call: CallView) -> int:
    kernels = (call.weights["depthwise_kernel"], call.weights["pointwise_kernel"])
    return _positions(call, call.outputs[0]) * sum(product(kernel) for kernel in kernels)


RULES: dict[str, Rule] = {
    **{f"Conv{n}D": Rule(_conv, _conv_macs) for n in (1, 2, 3)},
    **{f"Conv{n}DTranspose": Rule(_conv_transpose, _transpose_macs) for n in (1, 2, 3)},
    **{f"DepthwiseConv{n}D": Rule(_depthwise, _conv_macs) for n in (1, 2)},
    **{f"SeparableConv{n}D": Rule(_separable, _separable_macs) for n in (1, 2)},
}
