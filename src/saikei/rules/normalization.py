"""Normalisation with per-channel statistics, and scaling by constants."""

from __future__ import annotations

from saikei.rules.base import CallView, Rule, axis_of, no_macs, pinned_flow
from saikei.rules.labels import Flow, Labels, LabelSource, Pin, bind_blocks, labelled


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


def _layer_normalization(call: CallView, inputs: tuple[Labels, ...], source: LabelSource) -> Flow:
    """`LayerNormalization` and `RMSNormalization`: statistics over the axes that may be cut."""
    rank = len(call.inputs[0])
    axis = call.config["axis"]
    axes = [axis_of(a, rank) for a in (axis if isinstance(axis, (list, tuple)) else [axis])]
    vectors = tuple(inputs[0][a] for a in axes)
    reason = None
    if any(vector is not None for vector in vectors):
        reason = f"'{call.operation}' takes its statistics over the channels that are left"
    return Flow(outputs=(inputs[0],), weights=dict.fromkeys(call.weights, vectors), inexact=reason)


def _group_normalization(call: CallView, inputs: tuple[Labels, ...], source: LabelSource) -> Flow:
    axis = axis_of(call.config["axis"], len(call.inputs[0]))
    vector = inputs[0][axis]
    weights: dict[str, Labels] = dict.fromkeys(call.weights, (vector,))
    pins = tuple(
        Pin(other, f"'{call.operation}' takes its statistics over this axis")
        for position, other in labelled(inputs[0])
        if position != axis
    )
    outputs = tuple(v if p == axis else None for p, v in enumerate(inputs[0]))
    groups = int(call.config["groups"])
    if vector is None or groups == -1:
        return Flow((outputs,), weights=weights, pins=pins)
    # Only whole groups can go.
    first = vector[:: len(vector) // groups]
    return Flow(
        (outputs,),
        weights=weights,
        sizes={"groups": first},
        ties=bind_blocks(vector, groups),
        pins=pins,
    )


def _unit_normalization(call: CallView, inputs: tuple[Labels, ...], source: LabelSource) -> Flow:
    # A silent channel adds nothing to the norm.
    return Flow((inputs[0],))


def _normalization(call: CallView, inputs: tuple[Labels, ...], source: LabelSource) -> Flow:
    """`Normalization` by statistics that were adapted or are given in the config."""
    rank = len(call.inputs[0])
    axis = call.config.get("axis")
    axes = () if axis is None else tuple(axis) if isinstance(axis, (list, tuple)) else (axis,)
    fixed = {axis_of(a, rank) for a in axes}
    pins = tuple(
        Pin(vector, f"'{call.operation}' has fixed statistics for each index of this axis")
        for position, vector in labelled(inputs[0])
        if position in fixed
    )
    return Flow(
        (tuple(None if p in fixed else v for p, v in enumerate(inputs[0])),),
        weights={name: (None,) * len(shape) for name, shape in call.weights.items()},
        pins=pins,
    )


def _layer_scale(call: CallView, inputs: tuple[Labels, ...], source: LabelSource) -> Flow:
    """ConvNeXt's `LayerScale`: one factor for each channel."""
    vector = inputs[0][-1]
    sizes: dict[str, object] = {} if vector is None else {"projection_dim": vector}
    return Flow((inputs[0],), weights={"gamma": (vector,)}, sizes=sizes)


RULES = {
    "BatchNormalization": Rule(_batch_normalization, no_macs),
    "LayerNormalization": Rule(_layer_normalization, no_macs),
    "RMSNormalization": Rule(_layer_normalization, no_macs),
    "GroupNormalization": Rule(_group_normalization, no_macs),
    "UnitNormalization": Rule(_unit_normalization, no_macs),
    "Normalization": Rule(_normalization, no_macs),
    "LayerScale": Rule(_layer_scale, no_macs),
    "Rescaling": Rule(_rescaling, no_macs),
}
