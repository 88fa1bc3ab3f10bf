"""Dense layers: fresh labels on the units, the input's labels on the kernel's rows."""

from __future__ import annotations

from saikei.rules.activations import activation_pins
from saikei.rules.base import CallView, Rule, product
from saikei.rules.labels import Flow, Labels, LabelSource


def _flow(call: CallView, inputs: tuple[Labels, ...], source: LabelSource) -> Flow:
    units = source.fresh(int(call.config["units"]), call.operation)
    weights: dict[str, Labels] = {"kernel": (inputs[0][-1], units)}
    if "bias" in call.weights:
        weights["bias"] = (units,)
    return Flow(
        outputs=((*inputs[0][:-1], units),),
        weights=weights,
        sizes={"units": units},
        pins=activation_pins(call, units),
    )


def _macs(call: CallView) -> int:
    return call.positions(call.outputs[0]) * product(call.weights["kernel"])


RULES = {"Dense": Rule(_flow, _macs)}
