"""Flatten, reshape and permute: labels move with the data."""

from __future__ import annotations

from typing import Any

import numpy as np

from saikei.rules.base import CallView, Rule, Shape, no_macs, pinned_flow
from saikei.rules.labels import Flow, Labels, LabelSource, Pin, Tie, Vector, labelled

MIXED = "a reshape mixes this axis with another that is cut or unknown"


def reshape_labels(
    labels: Labels, before: Shape, after: Shape, source: LabelSource | None = None
) -> tuple[Labels, tuple[Tie, ...], tuple[Pin, ...]]:
    """Labels of a row-major reshape.

    Axes are matched from the right in the smallest blocks of equal product. A block that
    joins axes repeats the labels of one of them; one that splits an axis ties the labels that
    land on the same index of one of its axes. Which one, the source chooses.
    """
    source = source or LabelSource()
    outputs: list[Vector | None] = [None] * len(after)
    ties: tuple[Tie, ...] = ()
    pins: tuple[Pin, ...] = ()
    stop_in, stop_out = len(before), len(after)
    while stop_in > 0 and stop_out > 0:
        block = _match(before[:stop_in], after[:stop_out])
        if block is None:
            break
        start_in, start_out = block
        vectors, new_ties, new_pins = _reshape_block(
            labels[start_in:stop_in], before[start_in:stop_in], after[start_out:stop_out], source
        )
        outputs[start_out:stop_out] = vectors
        ties, pins = ties + new_ties, pins + new_pins
        stop_in, stop_out = start_in, start_out
    pins += tuple(Pin(vector, MIXED) for _, vector in labelled(labels[:stop_in]))
    return tuple(outputs), ties, pins


def _match(before: Shape, after: Shape) -> tuple[int, int] | None:
    """Where the last block of equal product starts in both shapes; `None` if unknown."""
    start_in, start_out = len(before) - 1, len(after) - 1
    left, right = before[start_in], after[start_out]
    if left is None and right is None:
        return start_in, start_out
    while left != right:
        if left is None or right is None:
            return None
        if left < right:
            start_in -= 1
            left = _times(left, before[start_in]) if start_in >= 0 else None
        else:
            start_out -= 1
            right = _times(right, after[start_out]) if start_out >= 0 else None
    return start_in, start_out


def _times(size: int, other: int | None) -> int | None:
    return None if other is None else size * other


def _reshape_block(
    labels: Labels, before: Shape, after: Shape, source: LabelSource
) -> tuple[list[Vector | None], tuple[Tie, ...], tuple[Pin, ...]]:
    """Labels of one block that is joined, split, or both."""
    found = labelled(labels)
    if not found:
        return [None] * len(after), (), ()
    if before == after:
        return list(labels), (), ()
    axis, vector = found[0]
    pins: tuple[Pin, ...] = ()
    if len(found) > 1:
        axis = source.choose([a for a, _ in found], [v for _, v in found])
        vector = dict(found)[axis]
        pins = tuple(Pin(other, MIXED) for a, other in found if a != axis)
    sizes = [size or 1 for size in before]
    inner = int(np.prod(sizes[axis + 1 :], dtype=np.int64))
    outer = int(np.prod(sizes[:axis], dtype=np.int64))
    flat = np.tile(np.repeat(vector, inner), outer)
    vectors, ties = _split(flat, [size or 1 for size in after], source)
    return vectors, ties, pins


def _split(
    flat: Vector, sizes: list[int], source: LabelSource
) -> tuple[list[Vector | None], tuple[Tie, ...]]:
    """Spread a label vector over axes; one of them carries the labels."""
    table = flat.reshape(sizes)
    outputs: list[Vector | None] = [None] * len(sizes)
    wide = [axis for axis, size in enumerate(sizes) if size > 1]
    if not wide:
        outputs[-1] = flat
        return outputs, ()
    # An axis along which alone the labels vary (a flatten undone) needs no ties at all.
    for axis in reversed(wide):
        first = np.moveaxis(table, axis, 0).reshape(sizes[axis], -1)
        if (first == first[:, :1]).all():
            outputs[axis] = first[:, 0]
            return outputs, ()
    axis = source.choose(wide, [flat])
    rows = np.moveaxis(table, axis, 0).reshape(sizes[axis], -1)
    outputs[axis] = rows[:, 0]
    repeated = np.repeat(rows[:, :1], rows.shape[1] - 1, axis=1)
    return outputs, (Tie(repeated.ravel(), rows[:, 1:].ravel()),)


def _resized(target: Any, outputs: Labels, skip: int) -> tuple[object, ...]:
    """A config's target shape with cut axes replaced by their labels; -1 stays -1."""
    return tuple(
        int(size) if vector is None or size == -1 else vector
        for size, vector in zip(target, outputs[skip:], strict=True)
    )


def _reshape(call: CallView, inputs: tuple[Labels, ...], source: LabelSource) -> Flow:
    key, skip = ("newshape", 0) if call.kind == "ops.Reshape" else ("target_shape", 1)
    target = call.config.get(key)
    if len(inputs) != 1 or not isinstance(target, (list, tuple)):
        return pinned_flow(call, inputs, "its target shape is computed")
    outputs, ties, pins = reshape_labels(inputs[0], call.inputs[0], call.outputs[0], source)
    return Flow((outputs,), sizes={key: _resized(target, outputs, skip)}, ties=ties, pins=pins)


def _flatten(call: CallView, inputs: tuple[Labels, ...], source: LabelSource) -> Flow:
    shape, labels = call.inputs[0], inputs[0]
    if call.config.get("data_format") == "channels_first" and len(shape) > 1:
        # Keras moves the channels last before it flattens.
        order = (0, *range(2, len(shape)), 1)
        shape, labels = tuple(shape[a] for a in order), tuple(labels[a] for a in order)
    outputs, ties, pins = reshape_labels(labels, shape, call.outputs[0], source)
    return Flow((outputs,), ties=ties, pins=pins)


def _permuted(order: tuple[int, ...], inputs: tuple[Labels, ...]) -> Flow:
    return Flow((tuple(inputs[0][axis] for axis in order),))


def _permute(call: CallView, inputs: tuple[Labels, ...], source: LabelSource) -> Flow:
    return _permuted((0, *(int(axis) for axis in call.config["dims"])), inputs)


def _transpose(call: CallView, inputs: tuple[Labels, ...], source: LabelSource) -> Flow:
    rank = len(call.inputs[0])
    axes = call.config.get("axes") or tuple(reversed(range(rank)))
    return _permuted(tuple(int(axis) % rank for axis in axes), inputs)


def _swapaxes(call: CallView, inputs: tuple[Labels, ...], source: LabelSource) -> Flow:
    rank = len(call.inputs[0])
    order = list(range(rank))
    first, second = call.config["axis1"] % rank, call.config["axis2"] % rank
    order[first], order[second] = order[second], order[first]
    return _permuted(tuple(order), inputs)


def _moveaxis(call: CallView, inputs: tuple[Labels, ...], source: LabelSource) -> Flow:
    rank = len(call.inputs[0])
    # A probe whose axis p has size p + 1 shows where NumPy puts each axis.
    probe = np.broadcast_to(np.zeros(()), tuple(range(1, rank + 1)))
    moved = np.moveaxis(probe, _axes(call.config["source"]), _axes(call.config["destination"]))
    return _permuted(tuple(size - 1 for size in moved.shape), inputs)


def _axes(value: Any) -> list[int]:
    return [int(axis) for axis in value] if isinstance(value, (list, tuple)) else [int(value)]


def _expand_dims(call: CallView, inputs: tuple[Labels, ...], source: LabelSource) -> Flow:
    rank = len(call.outputs[0])
    new = {axis % rank for axis in _axes(call.config["axis"])}
    rest = iter(inputs[0])
    return Flow((tuple(None if axis in new else next(rest) for axis in range(rank)),))


def _squeeze(call: CallView, inputs: tuple[Labels, ...], source: LabelSource) -> Flow:
    shape = call.inputs[0]
    axis = call.config.get("axis")
    rank = len(shape)
    if axis is None:
        gone = {position for position, size in enumerate(shape) if size == 1}
    else:
        gone = {a % rank for a in _axes(axis)}
    pins = tuple(
        Pin(vector, "this axis is squeezed away")
        for position, vector in labelled(inputs[0])
        if position in gone
    )
    return Flow((tuple(v for p, v in enumerate(inputs[0]) if p not in gone),), pins=pins)


def _repeat_vector(call: CallView, inputs: tuple[Labels, ...], source: LabelSource) -> Flow:
    return Flow(((inputs[0][0], None, inputs[0][1]),))


def _flip(call: CallView, inputs: tuple[Labels, ...], source: LabelSource) -> Flow:
    rank = len(call.inputs[0])
    axis = call.config.get("axis")
    turned = set(range(rank)) if axis is None else {a % rank for a in _axes(axis)}
    labels = tuple(v[::-1] if v is not None and p in turned else v for p, v in enumerate(inputs[0]))
    return Flow((labels,))


RULES: dict[str, Rule] = {
    "Flatten": Rule(_flatten, no_macs),
    "Reshape": Rule(_reshape, no_macs),
    "ops.Reshape": Rule(_reshape, no_macs),
    "Permute": Rule(_permute, no_macs),
    "ops.Transpose": Rule(_transpose, no_macs),
    "ops.Swapaxes": Rule(_swapaxes, no_macs),
    "ops.Moveaxis": Rule(_moveaxis, no_macs),
    "ops.ExpandDims": Rule(_expand_dims, no_macs),
    "ops.Squeeze": Rule(_squeeze, no_macs),
    "ops.Flip": Rule(_flip, no_macs),
    "RepeatVector": Rule(_repeat_vector, no_macs),
}
