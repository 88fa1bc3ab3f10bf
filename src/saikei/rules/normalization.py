"""Normalisation with per-channel statistics, and scaling by constants."""

from __future__ import annotations

from saikei.rules.base import CallView, Rule, axis_of, no_macs, pinned_flow
from saikei.rules.labels import Flow, Labels, LabelSource


def _batch_normalization(call: CallView, inputs: tuple[Labels, ...], source: LabelSource) -> Flow:
    axis = call.config["axis"]
    if isinstance(axis, (list, tuple)):
        if len(axis) != 1:
            return pinned_flow(call, inputs, "it normalises over several axes")
        axis = axis[0]
    vector = inputs[0][axis_of(axis, len(call.inputs[0]))]
    return Flow(outputs=(inputs[0],), weights=dict.fromkeys(call.weights, (vector,)))


def _rescaling(call: CallView, inputs: tuple[Labels, ...], source: LabelSource) -> Flow:
    if any(isinstance(call.config[key], (list, tuple, dict)) for key in ("scale", "offset")):
        return pinned_flow(call, inputs, "its scale or offset is given channel by channel")
    return Flow(outputs=(inputs[0],))


RULES = {
    "BatchNormalization": Rule(_batch_normalization, no_macs),
    "Rescaling": Rule(_rescaling, no_macs),
}
