"""Reductions: a sum loses nothing with a silent channel; the others go over those left."""

from __future__ import annotations

from saikei.rules.base import CallView, Rule, axes_of, no_macs
from saikei.rules.labels import Flow, Labels, LabelSource, Pin, labelled

LEFT = "it reduces the channels that are left"


def _reduced(call: CallView, labels: Labels) -> tuple[Labels, set[int]]:
    """Labels of the result, and the axes that are reduced."""
    axis = call.config["axes"] if "axes" in call.config else call.config.get("axis")
    reduced = axes_of(axis, len(labels))
    if call.config.get("keepdims"):
        return tuple(None if p in reduced else v for p, v in enumerate(labels)), reduced
    return tuple(v for p, v in enumerate(labels) if p not in reduced), reduced


def _sum(call: CallView, inputs: tuple[Labels, ...], source: LabelSource) -> Flow:
    return Flow((_reduced(call, inputs[0])[0],) * len(call.outputs))


def _reduce(call: CallView, inputs: tuple[Labels, ...], source: LabelSource) -> Flow:
    outputs, reduced = _reduced(call, inputs[0])
    cut = any(axis in reduced for axis, _ in labelled(inputs[0]))
    return Flow((outputs,) * len(call.outputs), inexact=LEFT if cut else None)


def _pick(call: CallView, inputs: tuple[Labels, ...], source: LabelSource) -> Flow:
    """Pin the axis: the index of the largest depends on how many there are."""
    outputs, reduced = _reduced(call, inputs[0])
    pins = tuple(
        Pin(vector, f"'{call.operation}' picks an index of this axis")
        for axis, vector in labelled(inputs[0])
        if axis in reduced
    )
    return Flow((outputs,), pins=pins)


_REDUCTIONS = "Mean Max Min Amax Amin Prod Var Std Median Logsumexp All Any Moments"

RULES: dict[str, Rule] = {
    "ops.Sum": Rule(_sum, no_macs),
    "ops.CountNonzero": Rule(_sum, no_macs),
    **{f"ops.{name}": Rule(_reduce, no_macs) for name in _REDUCTIONS.split()},
    "ops.Argmax": Rule(_pick, no_macs),
    "ops.Argmin": Rule(_pick, no_macs),
}
