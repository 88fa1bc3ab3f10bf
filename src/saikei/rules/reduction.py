"""Reductions: the axes that are reduced need all their channels, the others pass."""

from __future__ import annotations

from saikei.rules.base import CallView, Rule, no_macs
from saikei.rules.labels import Flow, Labels, LabelSource, Pin, labelled


def _reduce(call: CallView, inputs: tuple[Labels, ...], source: LabelSource) -> Flow:
    rank = len(call.inputs[0])
    axis = call.config.get("axis")
    if axis is None:
        reduced = set(range(rank))
    else:
        axes = axis if isinstance(axis, (list, tuple)) else [axis]
        reduced = {a % rank for a in axes}
    pins = tuple(
        Pin(vector, f"'{call.operation}' reduces this axis")
        for position, vector in labelled(inputs[0])
        if position in reduced
    )
    if call.config.get("keepdims"):
        outputs = tuple(None if p in reduced else v for p, v in enumerate(inputs[0]))
    else:
        outputs = tuple(v for p, v in enumerate(inputs[0]) if p not in reduced)
    return Flow(outputs=(outputs,), pins=pins)


_REDUCTIONS = "Mean Sum Max Min Amax Amin Prod Var Std Median Logsumexp All Any"

RULES: dict[str, Rule] = {f"ops.{name}": Rule(_reduce, no_macs) for name in _REDUCTIONS.split()}
