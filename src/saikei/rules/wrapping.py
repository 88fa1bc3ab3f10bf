"""The ends of what `TimeDistributed` wraps: the axis of the steps goes, and comes back."""

from __future__ import annotations

from saikei.rules.base import CallView, Rule, no_macs
from saikei.rules.labels import Flow, Labels, LabelSource, Pin

# The kinds of the two ends, which only graphs have.
STEPS = "saikei.graph.per_step.Steps"
JOINED = "saikei.graph.per_step.Joined"
EVERY_STEP = "the same layer is applied along this axis"


def _steps(call: CallView, inputs: tuple[Labels, ...], source: LabelSource) -> Flow:
    batch, steps, *rest = inputs[0]
    return Flow(((batch, *rest),), pins=() if steps is None else (Pin(steps, EVERY_STEP),))


def _joined(call: CallView, inputs: tuple[Labels, ...], source: LabelSource) -> Flow:
    batch, *rest = inputs[0]
    return Flow(((batch, None, *rest),))


RULES: dict[str, Rule] = {STEPS: Rule(_steps, no_macs), JOINED: Rule(_joined, no_macs)}
