"""Normalisation and scaling: statistics of each channel alone, or over all channels together."""

from __future__ import annotations

from typing import Any

import numpy as np

from saikei.rules.base import (
    CallView,
    Rule,
    axes_of,
    axis_of,
    is_array,
    no_macs,
    pinned_flow,
)
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

STATISTICS = "its statistics are taken over the channels that are left"


def _batch_normalization(call: CallView, inputs: tuple[Labels, ...], source: LabelSource) -> Flow:
    axis = call.config["axis"]
    if isinstance(axis, (list, tuple)):
        if len(axis) != 1:
            return pinned_flow(call, inputs, "it normalises over several axes")
        axis = axis[0]
    vector = inputs[0][axis_of(axis, len(call.inputs[0]))]
    return Flow(outputs=(inputs[0],), weights=dict.fromkeys(call.weights, (vector,)))


def _over_axes(call: CallView, inputs: tuple[Labels, ...], source: LabelSource) -> Flow:
    """Layer and RMS normalisation: statistics over the axes that have the scale and offset."""
    axis = call.config["axis"]
    rank = len(call.inputs[0])
    # Keras keeps the axes in the order of their numbers as given, negative ones first.
    axes = [a % rank for a in (sorted(axis) if isinstance(axis, (list, tuple)) else [axis])]
    vectors = tuple(inputs[0][a] for a in axes)
    return Flow(
        outputs=(inputs[0],),
        weights=dict.fromkeys(call.weights, vectors),
        inexact=STATISTICS if any(v is not None for v in vectors) else None,
    )


def _group_normalization(call: CallView, inputs: tuple[Labels, ...], source: LabelSource) -> Flow:
    axis = axis_of(call.config["axis"], len(call.inputs[0]))
    vector = inputs[0][axis]
    pins = tuple(
        Pin(other, f"'{call.operation}' takes its statistics over this axis")
        for position, other in labelled(inputs[0])
        if position not in (0, axis)
    )
    outputs = tuple(v if p in (0, axis) else None for p, v in enumerate(inputs[0]))
    weights: dict[str, Labels] = dict.fromkeys(call.weights, (vector,))
    groups = int(call.config["groups"])
    if vector is None:
        return Flow(outputs=(outputs,), weights=weights, pins=pins)
    if groups == 1:
        return Flow(outputs=(outputs,), weights=weights, pins=pins, inexact=STATISTICS)
    groups = len(vector) if groups == -1 else groups
    return Flow(
        outputs=(outputs,),
        weights=weights,
        # Whole groups go, so that the statistics of the others stay as they are.
        sizes={"groups": vector[:: len(vector) // groups]},
        ties=bind_blocks(vector, groups),
        pins=pins,
    )


def _unit_normalization(call: CallView, inputs: tuple[Labels, ...], source: LabelSource) -> Flow:
    """A norm is a sum, to which a silent channel adds nothing."""
    return Flow(outputs=(inputs[0],))


def _norm_operation(call: CallView, inputs: tuple[Labels, ...], source: LabelSource) -> Flow:
    """`keras.ops` layer and RMS normalisation, whose scale and offset are arguments."""
    rank = len(call.inputs[0])
    axes = axes_of(call.config.get("axis", -1), rank)
    vector = inputs[0][-1]
    if axes != {rank - 1} or any(len(shape) != 1 for shape in call.inputs[1:]):
        return pinned_flow(call, inputs, "it normalises over axes other than the last")
    ties: list[Tie] = []
    pins: list[Pin] = []
    constants: dict[int, Labels] = {}
    for (given,) in inputs[1:]:
        if vector is not None and given is not None:
            ties.append(Tie(vector, given))
        else:
            found = [v for v in (vector, given) if v is not None]
            pins += [Pin(v, "scaled by an axis that cannot be cut") for v in found]
    if vector is not None:
        constants = dict.fromkeys(call.arrays(), (vector,))
    inexact = STATISTICS if vector is not None else None
    return Flow(
        (inputs[0],), constants=constants, ties=tuple(ties), pins=tuple(pins), inexact=inexact
    )


def _setting(config: Any, key: str) -> tuple[str, Any]:
    """Path and value of a config entry that Keras may have serialised as an array or tuple."""
    value = config[key]
    if not isinstance(value, dict):
        return key, value
    if value.get("class_name") == "__numpy__":
        return f"{key}/config/value", value["config"]["value"]
    if value.get("class_name") == "__tuple__":
        return f"{key}/items", value["items"]
    return key, None


def _rescaling(call: CallView, inputs: tuple[Labels, ...], source: LabelSource) -> Flow:
    found = dict(_setting(call.config, key) for key in ("scale", "offset"))
    if any(value is None or np.ndim(value) > 1 for value in found.values()):
        return pinned_flow(call, inputs, "its scale or offset is no number or vector")
    arrays = [path for path, value in found.items() if np.size(value) > 1]
    if arrays and any(axis != len(inputs[0]) - 1 for axis, _ in labelled(inputs[0])):
        return pinned_flow(call, inputs, "its scale or offset is a vector for another axis")
    return Flow(outputs=(inputs[0],), settings=dict.fromkeys(arrays, (inputs[0][-1],)))


def _normalization(call: CallView, inputs: tuple[Labels, ...], source: LabelSource) -> Flow:
    """Mean and variance of each index of some axes, as weights or in the config."""
    rank = len(call.inputs[0])
    axes = call.config["axis"]
    axes = () if axes is None else axes if isinstance(axes, (list, tuple)) else (axes,)
    vectors = tuple(inputs[0][a] for a in sorted(int(a) % rank for a in axes))
    weights: dict[str, Labels] = {
        name: vectors if shape else () for name, shape in call.weights.items()
    }
    settings: dict[str, Labels] = {}
    for key in ("mean", "variance"):
        path, value = _setting(call.config, key)
        if value is not None and is_array(value):
            sizes = np.shape(value)
            # Fewer axes than are kept apart are the last of them; size 1 is broadcast.
            own = vectors[len(vectors) - len(sizes) :]
            settings[path] = tuple(
                vector if size > 1 else None for size, vector in zip(sizes, own, strict=True)
            )
    return Flow(outputs=(inputs[0],), weights=weights, settings=settings)


def _layer_scale(call: CallView, inputs: tuple[Labels, ...], source: LabelSource) -> Flow:
    """ConvNeXt's factor for each channel."""
    vector: Vector | None = inputs[0][-1]
    sizes: dict[str, object] = {} if vector is None else {"projection_dim": vector}
    return Flow(outputs=(inputs[0],), weights=dict.fromkeys(call.weights, (vector,)), sizes=sizes)


RULES = {
    "BatchNormalization": Rule(_batch_normalization, no_macs),
    "LayerNormalization": Rule(_over_axes, no_macs),
    "RMSNormalization": Rule(_over_axes, no_macs),
    "GroupNormalization": Rule(_group_normalization, no_macs),
    "UnitNormalization": Rule(_unit_normalization, no_macs),
    "Normalization": Rule(_normalization, no_macs),
    "Rescaling": Rule(_rescaling, no_macs),
    "LayerScale": Rule(_layer_scale, no_macs),
    "ops.LayerNorm": Rule(_norm_operation, no_macs),
    "ops.RMSNorm": Rule(_norm_operation, no_macs),
    "ops.Normalize": Rule(_unit_normalization, no_macs),
}
