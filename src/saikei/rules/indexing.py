"""Slices, splits and look-ups: parts of an axis keep their labels, and are counted anew."""

from __future__ import annotations

from typing import Any

import numpy as np

from saikei.rules.base import (
    CallView,
    Rule,
    axes_of,
    axis_of,
    no_macs,
    pinned_flow,
)
from saikei.rules.labels import Flow, Labels, LabelSource, Pin, Tie, Vector, labelled


def part_of(
    vector: Vector, start: int, stop: int, call: CallView, part: str, source: LabelSource
) -> tuple[Vector, Tie]:
    """Labels of a run of an axis: new ones, so that at least one of them stays."""
    run = vector[start:stop]
    fresh = source.fresh(len(run), call.operation, part)
    return fresh, Tie(fresh, run)


def _get_item(call: CallView, inputs: tuple[Labels, ...], source: LabelSource) -> Flow:
    """`x[...]` with slices and integers."""
    places = [p for p in range(len(call.arguments)) if p not in call.tensor_positions]
    keys = {place: call.arguments[place] for place in places}
    if len(inputs) != 1 or not all(_is_basic(key) for key in keys.values()):
        return pinned_flow(call, inputs, "it indexes with a tensor")
    outputs: list[Vector | None] = []
    taken = _Taken(call, source)
    axes = iter(inputs[0])
    for place in _one_for_each_axis(keys, len(call.inputs[0])):
        key = slice(None) if place is None else keys[place]
        if key is None:
            outputs.append(None)
        elif isinstance(key, slice):
            outputs.append(taken.slice(next(axes), key, place))
        else:
            taken.index(next(axes), int(key), place)
    if len(outputs) != len(call.outputs[0]):
        return pinned_flow(call, inputs, "it is indexed in a way that its rule does not know")
    return Flow(
        (tuple(outputs),),
        arguments=taken.arguments,
        ties=tuple(taken.ties),
        pins=tuple(taken.pins),
    )


def _one_for_each_axis(keys: dict[int, Any], rank: int) -> list[int | None]:
    """The places of the keys in order, `None` for each axis that is taken whole."""
    count = sum(key is not None and key is not Ellipsis for key in keys.values())
    whole: list[int | None] = [None] * (rank - count)
    places: list[int | None] = list(keys)
    at = next((i for i, key in enumerate(keys.values()) if key is Ellipsis), None)
    return places + whole if at is None else places[:at] + whole + places[at + 1 :]


class _Taken:
    """The labels that are taken of axes, collected key by key."""

    def __init__(self, call: CallView, source: LabelSource) -> None:
        self._call, self._source = call, source
        self.arguments: dict[int, object] = {}
        self.ties: list[Tie] = []
        self.pins: list[Pin] = []

    def slice(self, vector: Vector | None, key: slice, place: int | None) -> Vector | None:
        """Labels of an axis of which a slice is taken."""
        if vector is None or place is None or key == slice(None):
            return vector
        ends_known = all(end is None or _is_integer(end) for end in (key.start, key.stop))
        if key.step == -1 and key.start is None and key.stop is None:
            return vector[::-1]
        start, stop, step = key.indices(len(vector)) if ends_known else (0, 0, 1)
        if step != 1 or stop <= start:
            reason = f"'{self._call.operation}' takes a part of this axis by index"
            self.pins.append(Pin(vector, reason))
            return None
        fresh, tie = part_of(vector, start, stop, self._call, f"from{start}", self._source)
        self.ties.append(tie)
        ends = (vector[:start] if start else None, None if key.stop is None else vector[:stop])
        self.arguments[place] = slice(*ends)
        return fresh

    def index(self, vector: Vector | None, key: int, place: int | None) -> None:
        """One index of a labelled axis stays, wherever it then is."""
        if vector is None or place is None:
            return
        at = key % len(vector)
        reason = f"'{self._call.operation}' takes this channel by index"
        self.pins.append(Pin(vector[at : at + 1], reason))
        self.arguments[place] = vector[:at]


def _is_integer(key: Any) -> bool:
    return isinstance(key, (int, np.integer)) and not isinstance(key, bool)


def _is_basic(key: Any) -> bool:
    return key is None or key is Ellipsis or isinstance(key, slice) or _is_integer(key)


def _split(call: CallView, inputs: tuple[Labels, ...], source: LabelSource) -> Flow:
    axis = axis_of(call.config.get("axis", 0), len(call.inputs[0]))
    vector = inputs[0][axis]
    sections = call.config["indices_or_sections"]
    if vector is None:
        return Flow((inputs[0],) * len(call.outputs))
    size = len(vector)
    if isinstance(sections, int):
        ends = [size // sections * n for n in range(1, sections)]
    else:
        ends = [int(end) for end in sections]
    starts = [0, *ends]
    if starts != sorted(starts) or len({*starts, size}) != len(starts) + 1:
        return pinned_flow(call, inputs, "it is split into parts of which some are empty")
    outputs: list[Labels] = []
    ties: list[Tie] = []
    for start, stop in zip(starts, [*ends, size], strict=True):
        fresh, tie = part_of(vector, start, stop, call, f"from{start}", source)
        outputs.append(tuple(fresh if a == axis else v for a, v in enumerate(inputs[0])))
        ties.append(tie)
    sizes: dict[str, object] = {"indices_or_sections": tuple(vector[:end] for end in ends)}
    return Flow(tuple(outputs), sizes=sizes, ties=tuple(ties))


def _unstack(call: CallView, inputs: tuple[Labels, ...], source: LabelSource) -> Flow:
    axis = axis_of(call.config.get("axis", 0), len(call.inputs[0]))
    vector = inputs[0][axis]
    pins = () if vector is None else (Pin(vector, "this axis is unstacked"),)
    rest = tuple(v for a, v in enumerate(inputs[0]) if a != axis)
    return Flow((rest,) * len(call.outputs), pins=pins)


def _take(call: CallView, inputs: tuple[Labels, ...], source: LabelSource) -> Flow:
    """A look-up along one axis, by indices that may be a tensor."""
    found = call.tensors("x", 0)
    axis = call.config.get("axis")
    if found != (0,) or axis is None:
        return pinned_flow(call, inputs, "it looks up in all axes, or in a constant")
    at = axis_of(int(axis), len(call.inputs[0]))
    pins = tuple(
        Pin(vector, f"'{call.operation}' looks this axis up by index")
        for labels, own in ((inputs[0], {at}), *((labels, None) for labels in inputs[1:]))
        for a, vector in labelled(labels)
        if own is None or a in own
    )
    width = len(call.outputs[0]) - len(call.inputs[0]) + 1
    return Flow(((*inputs[0][:at], *(None,) * width, *inputs[0][at + 1 :]),), pins=pins)


def _axiswise(call: CallView, inputs: tuple[Labels, ...], source: LabelSource) -> Flow:
    """An operation along some axes, which need all their channels; its shape stays."""
    rank = len(call.inputs[0])
    axes = axes_of(call.config.get("axis"), rank)
    if len(inputs) != 1 or any(shape != call.inputs[0] for shape in call.outputs):
        return pinned_flow(call, inputs, "used in a way that its rule does not know")
    return _without(call, inputs[0], axes)


def _matrixwise(call: CallView, inputs: tuple[Labels, ...], source: LabelSource) -> Flow:
    """An operation on the last two axes; its shape stays."""
    rank = len(call.inputs[0])
    return _without(call, inputs[0], {rank - 2, rank - 1})


def _last_axis(call: CallView, inputs: tuple[Labels, ...], source: LabelSource) -> Flow:
    return _without(call, inputs[0], {len(call.inputs[0]) - 1})


def _without(call: CallView, labels: Labels, axes: set[int]) -> Flow:
    pins = tuple(
        Pin(vector, f"'{call.operation}' orders or shifts this axis")
        for axis, vector in labelled(labels)
        if axis in axes
    )
    left = tuple(None if a in axes else v for a, v in enumerate(labels))
    return Flow((left,) * len(call.outputs), pins=pins)


def _one_hot(call: CallView, inputs: tuple[Labels, ...], source: LabelSource) -> Flow:
    axis = axis_of(call.config.get("axis", -1), len(call.outputs[0]))
    return Flow(((*inputs[0][:axis], None, *inputs[0][axis:]),))


RULES: dict[str, Rule] = {
    "ops.GetItem": Rule(_get_item, no_macs),
    "ops.Split": Rule(_split, no_macs),
    "ops.Unstack": Rule(_unstack, no_macs),
    "ops.Take": Rule(_take, no_macs),
    "ops.OneHot": Rule(_one_hot, no_macs),
    "ops.TopK": Rule(_last_axis, no_macs),
    **{f"ops.{name}": Rule(_axiswise, no_macs) for name in ("Roll", "Cumsum", "Cumprod", "Sort")},
    **{f"ops.{name}": Rule(_matrixwise, no_macs) for name in ("Tril", "Triu")},
}
