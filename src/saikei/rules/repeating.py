"""Repeats, tiles and broadcasts, and channels that become positions or the other way round."""

from __future__ import annotations

import numpy as np

from saikei.rules.base import CallView, Rule, axis_of, no_macs, on_axis, pinned_flow
from saikei.rules.convolution import pins_off_axis
from saikei.rules.labels import Flow, Labels, LabelSource, Pin, Tie, Vector
from saikei.rules.merging import BROADCAST


def _repeat(call: CallView, inputs: tuple[Labels, ...], source: LabelSource) -> Flow:
    axis, repeats = call.config.get("axis"), call.config["repeats"]
    if axis is None:
        return pinned_flow(call, inputs, "it repeats over all axes")
    at = axis_of(int(axis), len(call.inputs[0]))
    vector = inputs[0][at]
    if vector is None:
        return Flow((inputs[0],))
    if not isinstance(repeats, int):
        return pinned_flow(call, inputs, "it repeats each channel another number of times")
    repeated = np.repeat(vector, repeats)
    return Flow((tuple(repeated if a == at else v for a, v in enumerate(inputs[0])),))


def _tile(call: CallView, inputs: tuple[Labels, ...], source: LabelSource) -> Flow:
    repeats = call.config["repeats"]
    repeats = (repeats,) if isinstance(repeats, int) else tuple(repeats)
    rank = len(call.outputs[0])
    if not all(isinstance(count, int) for count in repeats):
        return pinned_flow(call, inputs, "its numbers of copies are computed")
    counts = (*(1,) * (rank - len(repeats)), *repeats)
    labels: Labels = (*(None,) * (rank - len(inputs[0])), *inputs[0])
    tiled = (None if v is None else np.tile(v, n) for v, n in zip(labels, counts, strict=True))
    return Flow((tuple(tiled),))


def _broadcast_to(call: CallView, inputs: tuple[Labels, ...], source: LabelSource) -> Flow:
    rank = len(call.outputs[0])
    extra = rank - len(inputs[0])
    labels: Labels = (*(None,) * extra, *inputs[0])
    before = (*(1,) * extra, *call.inputs[0])
    kept: list[Vector | None] = []
    pins: list[Pin] = []
    for vector, old, new in zip(labels, before, call.outputs[0], strict=True):
        kept.append(vector if old == new else None)
        if vector is not None and old != new:
            pins.append(Pin(vector, BROADCAST))
    shape = call.config["shape"]
    sizes = tuple(n if v is None else v for n, v in zip(shape, kept, strict=True))
    return Flow((tuple(kept),), sizes={"shape": sizes}, pins=tuple(pins))


def _depth_to_space(call: CallView, inputs: tuple[Labels, ...], source: LabelSource) -> Flow:
    """Pixel shuffle: the channels of one output channel lie one for each position of a block."""
    rank = len(call.inputs[0])
    vector = inputs[0][-1]
    if call.config.get("data_format") == "channels_first":
        return pinned_flow(call, inputs, "its channels come first")
    if vector is None:
        return Flow((on_axis(rank, rank - 1, None),), pins=pins_off_axis(inputs[0], rank - 1))
    table = vector.reshape(int(call.config["block_size"]) ** 2, -1)
    first = np.broadcast_to(table[:1], table[1:].shape)
    return Flow(
        (on_axis(rank, rank - 1, table[0]),),
        ties=(Tie(first.ravel(), table[1:].ravel()),),
        pins=pins_off_axis(inputs[0], rank - 1),
    )


def _space_to_depth(call: CallView, inputs: tuple[Labels, ...], source: LabelSource) -> Flow:
    rank = len(call.inputs[0])
    vector = inputs[0][-1]
    if call.config.get("data_format") == "channels_first":
        return pinned_flow(call, inputs, "its channels come first")
    tiled = None if vector is None else np.tile(vector, int(call.config["block_size"]) ** 2)
    return Flow((on_axis(rank, rank - 1, tiled),), pins=pins_off_axis(inputs[0], rank - 1))


def _glu(call: CallView, inputs: tuple[Labels, ...], source: LabelSource) -> Flow:
    """One half of an axis gates the other, channel by channel."""
    axis = axis_of(int(call.config.get("axis", -1)), len(call.inputs[0]))
    vector = inputs[0][axis]
    if vector is None:
        return Flow((inputs[0],))
    first, second = np.split(vector, 2)
    labels = tuple(first if a == axis else v for a, v in enumerate(inputs[0]))
    return Flow((labels,), ties=(Tie(first, second),))


RULES: dict[str, Rule] = {
    "ops.Repeat": Rule(_repeat, no_macs),
    "ops.Tile": Rule(_tile, no_macs),
    "ops.BroadcastTo": Rule(_broadcast_to, no_macs),
    "ops.DepthToSpace": Rule(_depth_to_space, no_macs),
    "ops.SpaceToDepth": Rule(_space_to_depth, no_macs),
    "ops.Glu": Rule(_glu, no_macs),
}
