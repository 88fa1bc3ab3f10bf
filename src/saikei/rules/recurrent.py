"""Recurrent layers: the units are cut, with their columns in every gate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from saikei.rules.activations import mixes_channels
from saikei.rules.base import (
    CallView,
    Rule,
    Shape,
    channel_axis,
    on_axis,
    pinned_flow,
    product,
)
from saikei.rules.convolution import pins_off_axis
from saikei.rules.labels import (
    Flow,
    Labels,
    LabelSource,
    Pin,
    Tie,
    Vector,
)
from saikei.rules.merging import tie_axis

# How many gates lie side by side in the kernels of each cell, and how many states it has.
_GATES = {"SimpleRNN": 1, "GRU": 3, "LSTM": 4, "ConvLSTM": 4}
_STATES = {"SimpleRNN": 1, "GRU": 1, "LSTM": 2, "ConvLSTM": 2}
STEPS = "a recurrent layer steps along this axis"


@dataclass(frozen=True)
class _Cell:
    """A recurrent layer's cell: its kind, its config, its weights and its input."""

    kind: str
    config: Mapping[str, Any]
    weights: Mapping[str, Shape]
    prefix: str
    given: Vector | None

    @property
    def states(self) -> int:
        """How many tensors it hands from step to step."""
        return _STATES[self.kind]

    def labels(self, units: Vector) -> tuple[dict[str, Labels], dict[str, tuple[int, ...]]]:
        """Labels of its weights, and which of their axes make channels."""
        gates = np.tile(units, _GATES[self.kind])
        weights: dict[str, Labels] = {}
        produces: dict[str, tuple[int, ...]] = {}
        for name, shape in self.weights.items():
            if not name.startswith(self.prefix):
                continue
            rank = len(shape)
            # A GRU that resets after the product has a bias of each product, as rows.
            rows: dict[str, Vector | None] = {"kernel": self.given, "recurrent_kernel": units}
            row = rows.get(name.rpartition("/")[2])
            spatial: Labels = (None,) * (rank - 2)
            weights[name] = (*spatial, row, gates) if rank > 1 else (gates,)
            produces[name] = (rank - 1,)
        return weights, produces

    def pins(self, units: Vector) -> tuple[Pin, ...]:
        """Pins where an activation mixes units."""
        used = (self.config.get("activation"), self.config.get("recurrent_activation"))
        reasons = [reason for reason in map(mixes_channels, used) if reason is not None]
        return tuple(Pin(units, reason) for reason in reasons)


def _cell(call: CallView, kind: str, given: Vector | None) -> _Cell:
    return _Cell(kind, call.config, call.weights, "", given)


def _tie_states(
    call: CallView, inputs: tuple[Labels, ...], vectors: list[Vector]
) -> tuple[tuple[Tie, ...], tuple[Pin, ...]]:
    """Initial states have the units of the layer."""
    ties: tuple[Tie, ...] = ()
    pins: tuple[Pin, ...] = ()
    for index, units in zip(call.tensors("initial_state", 1), vectors, strict=False):
        rank = len(inputs[index])
        axis = rank - 1 if rank == 2 else channel_axis(call, rank)
        _, new_ties, new_pins = tie_axis([(None, units), (None, inputs[index][axis])])
        ties, pins = ties + new_ties, pins + new_pins + pins_off_axis(inputs[index], axis, STEPS)
    return ties, pins


def _recurrent(kind: str) -> Rule:
    def flow(call: CallView, inputs: tuple[Labels, ...], source: LabelSource) -> Flow:
        units = source.fresh(int(call.config["units"]), call.operation)
        cell = _cell(call, kind, inputs[0][-1])
        weights, produces = cell.labels(units)
        ties, pins = _tie_states(call, inputs, [units] * cell.states)
        return Flow(
            outputs=tuple(on_axis(len(s), len(s) - 1, units) for s in call.outputs),
            weights=weights,
            sizes={"units": units},
            ties=ties,
            pins=pins + pins_off_axis(inputs[0], 2, STEPS) + cell.pins(units),
            produces=produces,
        )

    return Rule(flow, _macs)


def _macs(call: CallView) -> int:
    """Each step multiplies the input and the state with their kernels."""
    steps = call.inputs[0][1] or 1
    kernels = [shape for name, shape in call.weights.items() if name.endswith("kernel")]
    return steps * sum(product(shape) for shape in kernels)


def _conv_lstm(call: CallView, inputs: tuple[Labels, ...], source: LabelSource) -> Flow:
    rank = len(call.inputs[0])
    axis = 2 if call.config.get("data_format") == "channels_first" else rank - 1
    units = source.fresh(int(call.config["filters"]), call.operation)
    cell = _cell(call, "ConvLSTM", inputs[0][axis])
    weights, produces = cell.labels(units)
    ties, pins = _tie_states(call, inputs, [units] * cell.states)
    outputs = []
    for shape in call.outputs:
        # A sequence has the channels behind the steps, a state behind the batch.
        at = channel_axis(call, len(shape)) + (len(shape) == rank and axis == 2)
        outputs.append(on_axis(len(shape), at, units))
    return Flow(
        outputs=tuple(outputs),
        weights=weights,
        sizes={"filters": units},
        ties=ties,
        pins=pins + pins_off_axis(inputs[0], axis, STEPS) + cell.pins(units),
        produces=produces,
    )


def _conv_lstm_macs(call: CallView) -> int:
    shape = call.outputs[0]
    first = call.config.get("data_format") == "channels_first"
    sequence = bool(call.config.get("return_sequences"))
    spatial = shape[1 + sequence :]
    spatial = spatial[1:] if first else spatial[:-1]
    return _macs(call) * product(spatial)


def _cell_layer(call: CallView, inputs: tuple[Labels, ...], source: LabelSource) -> Flow:
    """`RNN` of one of Keras's cells."""
    inner = call.config["cell"]
    kind = str(inner.get("class_name", "")).removesuffix("Cell") if isinstance(inner, dict) else ""
    if kind not in _GATES or inner.get("module") != "keras.layers":
        return pinned_flow(call, inputs, "its cell is of a kind for which there is no rule")
    units = source.fresh(int(inner["config"]["units"]), call.operation)
    cell = _Cell(kind, inner["config"], call.weights, "", inputs[0][-1])
    weights, produces = cell.labels(units)
    ties, pins = _tie_states(call, inputs, [units] * cell.states)
    return Flow(
        outputs=tuple(on_axis(len(s), len(s) - 1, units) for s in call.outputs),
        weights=weights,
        sizes={"cell/config/units": units, **built_sizes(inner, "cell", (cell.given,))},
        ties=ties,
        pins=pins + pins_off_axis(inputs[0], 2, STEPS) + cell.pins(units),
        produces=produces,
    )


def built_sizes(inner: Mapping[str, Any], path: str, last: Labels) -> dict[str, object]:
    """The shape on which Keras builds a layer within a layer, as it stands in the config.

    Args:
        inner: the serialised layer.
        path: of it in the outer config.
        last: labels of the last axes of its input.
    """
    shape = (inner.get("build_config") or {}).get("input_shape")
    if not isinstance(shape, (list, tuple)) or len(shape) < len(last):
        return {}
    start = len(shape) - len(last)
    new = tuple(s if v is None else v for s, v in zip(shape[start:], last, strict=True))
    return {f"{path}/build_config/input_shape": (*shape[:start], *new)}


def _bidirectional(call: CallView, inputs: tuple[Labels, ...], source: LabelSource) -> Flow:
    """Both directions lose the same units: Keras infers shapes as if they had as many."""
    given = inputs[0][-1]
    found = [_direction(call, path, given) for path in ("layer", "backward_layer")]
    sizes = {int(cell.config["units"]) for cell in found if cell is not None}
    cells = [cell for cell in found if cell is not None]
    if len(cells) != 2 or len(sizes) != 1:
        return pinned_flow(call, inputs, "it wraps layers for which there is no rule")
    units = source.fresh(sizes.pop(), call.operation)
    weights: dict[str, Labels] = {}
    produces: dict[str, tuple[int, ...]] = {}
    counts: dict[str, object] = {}
    for path, cell in zip(("layer", "backward_layer"), cells, strict=True):
        own, made = cell.labels(units)
        weights, produces = {**weights, **own}, {**produces, **made}
        built = built_sizes(call.config[path], path, (given,))
        counts = {**counts, f"{path}/config/units": units, **built}
    states = cells[0].states + cells[1].states
    ties, pins = _tie_states(call, inputs, [units] * states)
    mode = call.config["merge_mode"]
    first = [units, units] if mode is None else [units]
    if mode == "concat":
        first = [np.concatenate([units, units])]
    return Flow(
        outputs=tuple(
            on_axis(len(shape), len(shape) - 1, vector)
            for shape, vector in zip(call.outputs, [*first, *[units] * states], strict=False)
        ),
        weights=weights,
        sizes=counts,
        ties=ties,
        pins=pins
        + pins_off_axis(inputs[0], 2, STEPS)
        + cells[0].pins(units)
        + cells[1].pins(units),
        produces=produces,
    )


# The attribute of `Bidirectional` for each layer in its config.
_HOLDS = {"layer": "forward_layer", "backward_layer": "backward_layer"}


def _direction(call: CallView, path: str, given: Vector | None) -> _Cell | None:
    inner = call.config.get(path)
    kind = str(inner.get("class_name")) if isinstance(inner, dict) else ""
    if not isinstance(inner, dict) or kind not in ("SimpleRNN", "GRU", "LSTM"):
        return None
    return _Cell(kind, inner["config"], call.weights, f"{_HOLDS[path]}/", given)


RULES: dict[str, Rule] = {
    **{kind: _recurrent(kind) for kind in ("SimpleRNN", "GRU", "LSTM")},
    **{f"ConvLSTM{n}D": Rule(_conv_lstm, _conv_lstm_macs) for n in (1, 2, 3)},
    "RNN": Rule(_cell_layer, _macs),
    "Bidirectional": Rule(_bidirectional, _macs),
}
