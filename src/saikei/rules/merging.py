"""Operations of several tensors: element-wise merges tie labels, concatenation joins them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from saikei.rules.base import (
    CallView,
    Rule,
    Shape,
    axis_of,
    no_macs,
    pinned_flow,
)
from saikei.rules.labels import Flow, Labels, LabelSource, Pin, Tie, Vector

WITH_FIXED = "combined with an axis that cannot be cut"
BROADCAST = "its only channel is broadcast over many"


def tie_axis(
    parts: Sequence[tuple[int | None, Vector | None]],
) -> tuple[Vector | None, tuple[Tie, ...], tuple[Pin, ...]]:
    """One axis of tensors that are combined element by element.

    Args:
        parts: Size and labels of the axis in each tensor.

    Returns:
        The labels of the result's axis, and the ties and pins that follow.
    """
    wide = [part for part in parts if part[0] != 1]
    narrow = [vector for size, vector in parts if size == 1 and vector is not None]
    if not wide:
        wide, narrow = list(parts), []
    pins = tuple(Pin(vector, BROADCAST) for vector in narrow)
    vectors = [vector for _, vector in wide if vector is not None]
    if len(vectors) < len(wide):
        return None, (), pins + tuple(Pin(vector, WITH_FIXED) for vector in vectors)
    first = vectors[0]
    return first, tuple(Tie(first, other) for other in vectors[1:]), pins


def _merge_axes(
    operands: Sequence[tuple[Shape, Labels]], out_shape: Shape
) -> tuple[Labels, tuple[Tie, ...], tuple[Pin, ...]]:
    """Labels of the element-wise combination of tensors of one rank."""
    outputs: list[Vector | None] = []
    ties: tuple[Tie, ...] = ()
    pins: tuple[Pin, ...] = ()
    for axis in range(len(out_shape)):
        vector, new_ties, new_pins = tie_axis([(s[axis], v[axis]) for s, v in operands])
        outputs.append(vector)
        ties, pins = ties + new_ties, pins + new_pins
    return tuple(outputs), ties, pins


def _widened(shape: Shape, labels: Labels, rank: int, at: int) -> tuple[Shape, Labels]:
    """The labels of a tensor with axes of size 1 inserted at a position, up to a rank."""
    extra = rank - len(shape)
    if extra == 0:
        return shape, labels
    return (
        (*shape[:at], *(1,) * extra, *shape[at:]),
        (*labels[:at], *(None,) * extra, *labels[at:]),
    )


def _merge(call: CallView, inputs: tuple[Labels, ...], source: LabelSource) -> Flow:
    rank = len(call.outputs[0])
    # Keras's merging layers put missing axes after the batch axis; operations broadcast as
    # NumPy does, from the right.
    at = 0 if call.kind.startswith("ops.") else 1
    operands = [
        _widened(shape, labels, rank, min(at, len(shape)))
        for shape, labels in zip(call.inputs, inputs, strict=True)
    ]
    constants: dict[int, Labels] = {}
    for position, argument in enumerate(call.arguments):
        if position in call.tensor_positions or np.ndim(argument) == 0:
            continue
        shape = tuple(np.shape(argument))
        labels = tuple(source.fresh(size, call.operation) if size > 1 else None for size in shape)
        constants[position] = labels
        operands.append(_widened(shape, labels, rank, 0))
    outputs, ties, pins = _merge_axes(operands, call.outputs[0])
    return Flow(outputs=(outputs,), constants=constants, ties=ties, pins=pins)


def _concatenate(call: CallView, inputs: tuple[Labels, ...], source: LabelSource) -> Flow:
    rank = len(call.outputs[0])
    if any(np.ndim(argument) > 0 for argument in call.arguments):
        return pinned_flow(call, inputs, "it joins a tensor with a constant")
    joined_axis = axis_of(call.config.get("axis", -1), rank)
    operands = list(zip(call.inputs, inputs, strict=True))
    outputs: list[Vector | None] = []
    ties: tuple[Tie, ...] = ()
    pins: tuple[Pin, ...] = ()
    for axis in range(rank):
        parts = [(shape[axis], labels[axis]) for shape, labels in operands]
        if axis == joined_axis:
            vector, new_pins = _join(parts, call.operation, source)
            new_ties: tuple[Tie, ...] = ()
        else:
            vector, new_ties, new_pins = tie_axis(parts)
        outputs.append(vector)
        ties, pins = ties + new_ties, pins + new_pins
    return Flow(outputs=(tuple(outputs),), ties=ties, pins=pins)


def _join(
    parts: Sequence[tuple[int | None, Vector | None]], owner: str, source: LabelSource
) -> tuple[Vector | None, tuple[Pin, ...]]:
    """The joined axis of a concatenation; parts that cannot be cut get pinned labels."""
    vectors = [vector for _, vector in parts if vector is not None]
    if not vectors:
        return None, ()
    if any(size is None for size, _ in parts):
        return None, tuple(Pin(vector, "joined with an axis of unknown size") for vector in vectors)
    pins: list[Pin] = []
    joined: list[Vector] = []
    for size, vector in parts:
        if vector is None:
            vector = source.fresh(int(size or 0), owner)
            pins.append(Pin(vector, "joined from an axis that cannot be cut"))
        joined.append(vector)
    return np.concatenate(joined), tuple(pins)


def _stack(call: CallView, inputs: tuple[Labels, ...], source: LabelSource) -> Flow:
    rank = len(call.outputs[0])
    axis = axis_of(call.config.get("axis", 0), rank)
    shape = tuple(s for position, s in enumerate(call.outputs[0]) if position != axis)
    if any(np.ndim(argument) > 0 for argument in call.arguments):
        return pinned_flow(call, inputs, "it stacks a tensor with a constant")
    labels, ties, pins = _merge_axes(list(zip(call.inputs, inputs, strict=True)), shape)
    return Flow(outputs=((*labels[:axis], None, *labels[axis:]),), ties=ties, pins=pins)


_MERGE_NAMES = (
    "Add Subtract Multiply Average Maximum Minimum ops.Add ops.Subtract ops.Multiply ops.Maximum "
    "ops.Minimum ops.Divide ops.TrueDivide ops.DivideNoNan ops.FloorDivide ops.Power ops.Where "
    "ops.Mod ops.Fmax ops.Fmin ops.Logaddexp ops.Greater ops.GreaterEqual ops.Less ops.LessEqual "
    "ops.Equal ops.NotEqual ops.LogicalAnd ops.LogicalOr ops.LogicalXor ops.Arctan2 ops.Hypot "
    "ops.Logaddexp2 ops.Fmod ops.Isclose ops.Heaviside ops.Nextafter ops.BitwiseAnd "
    "ops.BitwiseOr ops.BitwiseXor"
)
MERGES = frozenset(_MERGE_NAMES.split())

RULES: dict[str, Rule] = {
    **{kind: Rule(_merge, no_macs) for kind in MERGES},
    "Concatenate": Rule(_concatenate, no_macs),
    # Of InceptionResNetV2: a sum with a constant factor.
    "CustomScaleLayer": Rule(_merge, no_macs),
    "ops.Concatenate": Rule(_concatenate, no_macs),
    "ops.Stack": Rule(_stack, no_macs),
}
