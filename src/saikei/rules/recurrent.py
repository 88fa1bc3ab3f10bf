"""Recurrent layers: the units stand in every gate, and in the state that comes back."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from saikei.rules.activations import activation_pins
from saikei.rules.base import CallView, Rule, pinned_flow, product
from saikei.rules.labels import Flow, Labels, LabelSource, Pin, Tie, Vector, labelled

GATES = {"LSTM": 4, "GRU": 3, "SimpleRNN": 1}
_TIME = "a recurrent layer runs along this axis"


def _gated(call: CallView, given: Vector | None, units: Vector, gates: int) -> dict[str, Labels]:
    """Labels of one cell's weights; they are named `lstm_cell/kernel` and so on."""
    wide = np.tile(units, gates)
    known: dict[str, Labels] = {"kernel": (given, wide), "recurrent_kernel": (units, wide)}
    weights: dict[str, Labels] = {}
    for name, shape in call.weights.items():
        last = name.split("/")[-1]
        # With `reset_after`, the bias of a GRU has two rows.
        weights[name] = known.get(last, (*(None,) * (len(shape) - 1), wide))
    return weights


def _states(
    call: CallView, inputs: tuple[Labels, ...], units: Vector
) -> tuple[tuple[Tie, ...], tuple[Pin, ...]]:
    """The initial states that are handed in are as wide as the layer."""
    ties: list[Tie] = []
    pins: list[Pin] = []
    for labels, shape in zip(inputs[1:], call.inputs[1:], strict=True):
        if len(shape) != 2 or shape[-1] != len(units):
            pins += [Pin(vector, _TIME) for _, vector in labelled(labels)]
        elif labels[-1] is None:
            pins.append(Pin(units, "its initial state cannot be cut"))
        else:
            ties.append(Tie(labels[-1], units))
    return tuple(ties), tuple(pins)


def _recurrent(call: CallView, inputs: tuple[Labels, ...], source: LabelSource) -> Flow:
    if call.config.get("stateful"):
        return pinned_flow(call, inputs, "it keeps its state between batches")
    units = source.fresh(int(call.config["units"]), call.operation)
    weights = _gated(call, inputs[0][-1], units, GATES[call.kind])
    ties, pins = _states(call, inputs, units)
    pins += tuple(Pin(v, _TIME) for axis, v in labelled(inputs[0]) if axis != len(inputs[0]) - 1)
    return Flow(
        outputs=tuple((*(None,) * (len(shape) - 1), units) for shape in call.outputs),
        weights=weights,
        sizes={"units": units},
        ties=ties,
        pins=pins + activation_pins(call, units),
        produced=tuple((name, len(labels) - 1) for name, labels in weights.items()),
    )


def _macs(call: CallView) -> int:
    steps = call.inputs[0][1] or 1
    kernels = [shape for name, shape in call.weights.items() if name.endswith("kernel")]
    return steps * sum(product(shape) for shape in kernels)


def _bidirectional(call: CallView, inputs: tuple[Labels, ...], source: LabelSource) -> Flow:
    kind = call.config["layer"]["class_name"]
    inner = call.config["layer"]["config"]
    backward = call.config["backward_layer"]["config"]
    if (
        kind not in GATES
        or len(inputs) > 1
        or inner.get("stateful")
        or inner["units"] != backward["units"]
    ):
        return pinned_flow(call, inputs, "its layers are of a kind that its rule does not know")
    units = source.fresh(int(inner["units"]), call.operation)
    # Keras makes both directions from one layer, so they have the same units.
    weights = _gated(call, inputs[0][-1], units, GATES[kind])
    pins = tuple(Pin(v, _TIME) for axis, v in labelled(inputs[0]) if axis != len(inputs[0]) - 1)
    joined = np.tile(units, 2) if call.config.get("merge_mode") == "concat" else units
    outputs: list[Labels] = []
    for shape in call.outputs:
        vector = joined if shape[-1] == len(joined) else units
        outputs.append((*(None,) * (len(shape) - 1), vector))
    nested = {"config": {"units": units}}
    view = replace(call, config=inner)
    return Flow(
        outputs=tuple(outputs),
        weights=weights,
        sizes={"layer": nested, "backward_layer": nested},
        pins=pins + activation_pins(view, units),
        produced=tuple((name, len(labels) - 1) for name, labels in weights.items()),
    )


RULES: dict[str, Rule] = {
    **{kind: Rule(_recurrent, _macs) for kind in GATES},
    "Bidirectional": Rule(_bidirectional, _macs),
}
