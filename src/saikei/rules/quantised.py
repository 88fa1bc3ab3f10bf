"""Layers that are quantised: nothing is cut at them, and they cost what they cost in floats."""

from __future__ import annotations

from saikei.rules.base import CallView, Rule, pinned_flow
from saikei.rules.labels import Flow, Labels, LabelSource

# Those whose weights are known in floating point.
MODES = ("int8", "int4", "float8")


def quantised(rule: Rule, mode: str) -> Rule:
    """The rule of a quantised layer.

    Args:
        rule: Rule of the layer in floating point, whose weights a `CallView` shows.
        mode: The mode, as Keras names it.
    """

    def flow(call: CallView, inputs: tuple[Labels, ...], source: LabelSource) -> Flow:
        return pinned_flow(call, inputs, why_whole(call.operation, mode))

    return Rule(flow, rule.macs)


def why_whole(name: str, mode: str) -> str:
    """Why a quantised layer is not changed, with the fix."""
    fix = "change the model before model.quantize()"
    if mode in MODES:
        fix = "apply saikei.Dequantize() first, and quantise the result"
    return f"'{name}' is quantised ({mode}): {fix}"
