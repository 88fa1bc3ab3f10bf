"""Pooling, padding, cropping and upsampling: the channel axis passes, the others slide."""

from __future__ import annotations

from saikei.rules.base import CallView, Rule, channel_axis, no_macs, on_axis, pinned_flow
from saikei.rules.convolution import pins_off_axis
from saikei.rules.labels import Flow, Labels, LabelSource, Pin


def _same_rank(call: CallView, inputs: tuple[Labels, ...], source: LabelSource) -> Flow:
    rank = len(call.inputs[0])
    axis = channel_axis(call, rank)
    if call.outputs[0][axis] != call.inputs[0][axis]:
        return pinned_flow(call, inputs, "it changes the number of channels")
    return Flow(
        outputs=(on_axis(rank, axis, inputs[0][axis]),), pins=pins_off_axis(inputs[0], axis)
    )


def _global_pooling(call: CallView, inputs: tuple[Labels, ...], source: LabelSource) -> Flow:
    axis = channel_axis(call, len(call.inputs[0]))
    out_rank = len(call.outputs[0])
    out_axis = axis if call.config.get("keepdims") else out_rank - 1
    return Flow(
        outputs=(on_axis(out_rank, out_axis, inputs[0][axis]),),
        pins=pins_off_axis(inputs[0], axis),
    )


def _pad_operation(call: CallView, inputs: tuple[Labels, ...], source: LabelSource) -> Flow:
    """`keras.ops.pad`: axes that it leaves alone pass."""
    if len(inputs) != 1:
        return pinned_flow(call, inputs, "its padding value is a tensor")
    kept = [
        vector if before == after else None
        for vector, before, after in zip(inputs[0], call.inputs[0], call.outputs[0], strict=True)
    ]
    pins = tuple(
        Pin(vector, "this axis is padded")
        for vector, passed in zip(inputs[0], kept, strict=True)
        if vector is not None and passed is None
    )
    return Flow(outputs=(tuple(kept),), pins=pins)


_SAME_RANK = (
    [f"{kind}Pooling{n}D" for kind in ("Max", "Average") for n in (1, 2, 3)]
    + [f"Adaptive{kind}Pooling{n}D" for kind in ("Max", "Average") for n in (1, 2, 3)]
    + [f"{kind}{n}D" for kind in ("ZeroPadding", "Cropping", "UpSampling") for n in (1, 2, 3)]
    + ["Resizing", "ops.MaxPool", "ops.AveragePool", "ops.AdaptiveMaxPool"]
    + ["ops.AdaptiveAveragePool", "ops.Resize", "CenterCrop", "RandomCrop", "RandomFlip"]
    + ["RandomRotation", "RandomTranslation", "RandomZoom", "RandomShear", "RandomErasing"]
)

RULES: dict[str, Rule] = {
    **{kind: Rule(_same_rank, no_macs) for kind in _SAME_RANK},
    **{
        f"Global{kind}Pooling{n}D": Rule(_global_pooling, no_macs)
        for kind in ("Max", "Average")
        for n in (1, 2, 3)
    },
    "ops.Pad": Rule(_pad_operation, no_macs),
}
