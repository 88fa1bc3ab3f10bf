"""Recurrent layers: the units are cut, with their columns in every gate.

A recurrent layer is one cell or several on top of each other, each reading what the one before
gives; `Bidirectional` is two of them side by side.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
from saikei.rules.labels import Flow, Labels, LabelSource, Pin, Tie, Vector
from saikei.rules.merging import tie_axis

# How many gates lie side by side in the kernels of each cell, and how many states it has.
_GATES = {"SimpleRNN": 1, "GRU": 3, "LSTM": 4, "ConvLSTM": 4}
_STATES = {"SimpleRNN": 1, "GRU": 1, "LSTM": 2, "ConvLSTM": 2}
_SIZES = {"ConvLSTM": "filters"}
STEPS = "a recurrent layer steps along this axis"
UNLIKE = (
    "its directions have different numbers of units (call its forward_layer and its backward_layer "
    "themselves, the sequence of the latter followed by keras.ops.flip, and join both by "
    "Concatenate)"
)
UNKNOWN_CELL = "its cell is of a kind for which there is no rule"


@dataclass(frozen=True)
class _Cell:
    """A cell of a recurrent layer.

    Args:
        kind: A key of the tables above.
        config: Its settings, or those of the layer that is made of it alone.
        weights: The weights of the call.
        prefix: Prefix of the names of its own weights.
        path: Path of the number of its units in the call's config.
    """

    kind: str
    config: Mapping[str, Any]
    weights: Mapping[str, Shape]
    prefix: str
    path: str

    @property
    def units(self) -> int:
        return int(self.config[_SIZES.get(self.kind, "units")])

    @property
    def states(self) -> int:
        """How many tensors it hands from step to step."""
        return _STATES[self.kind]

    def labels(
        self, given: Vector | None, units: Vector
    ) -> tuple[dict[str, Labels], dict[str, tuple[int, ...]]]:
        """Labels of its weights, and which of their axes make channels."""
        gates = np.tile(units, _GATES[self.kind])
        weights: dict[str, Labels] = {}
        produces: dict[str, tuple[int, ...]] = {}
        for name, shape in self.weights.items():
            if not name.startswith(self.prefix):
                continue
            rank = len(shape)
            # A GRU that resets after the product has a bias of each product, as rows.
            rows: dict[str, Vector | None] = {"kernel": given, "recurrent_kernel": units}
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

    def macs(self) -> int:
        """A step multiplies the input and the state with their kernels."""
        own = {name: shape for name, shape in self.weights.items() if name.startswith(self.prefix)}
        return sum(product(shape) for name, shape in own.items() if name.endswith("kernel"))


def _cells(
    call: CallView, kind: str, config: Mapping[str, Any], path: str = "", prefix: str = ""
) -> list[_Cell] | None:
    """The cells of a recurrent layer, from the first on; `None` where one has no rule."""
    plain = kind.rstrip("123D") if kind.startswith("ConvLSTM") else kind
    if plain in _GATES:
        size = path + _SIZES.get(plain, "units")
        return [_Cell(plain, config, call.weights, f"{prefix}cell/", size)]
    if kind != "RNN":
        return None
    inner = config["cell"]
    parts = [(inner, f"{path}cell/config/", f"{prefix}cell/")]
    if inner.get("class_name") == "StackedRNNCells":
        parts = [
            (part, f"{path}cell/config/cells/{i}/config/", f"{prefix}cell/cells/{i}/")
            for i, part in enumerate(inner["config"]["cells"])
        ]
    kinds = [str(part.get("class_name", "")).removesuffix("Cell") for part, _, _ in parts]
    own = all(str(part.get("module")) == "keras.layers" for part, _, _ in parts)
    if not own or not all(one in _GATES and one != "ConvLSTM" for one in kinds):
        return None
    return [
        _Cell(one, part["config"], call.weights, start, f"{at}units")
        for one, (part, at, start) in zip(kinds, parts, strict=True)
    ]


def _directions(call: CallView) -> list[list[_Cell]] | None:
    """The cells of both layers of a `Bidirectional`."""
    found = []
    for path, holds in (("layer", "forward_layer"), ("backward_layer", "backward_layer")):
        inner = call.config.get(path)
        if not isinstance(inner, Mapping) or str(inner.get("module")) != "keras.layers":
            return None
        kind, config = str(inner["class_name"]), inner["config"]
        cells = _cells(call, kind, config, f"{path}/config/", f"{holds}/")
        if cells is None:
            return None
        found.append(cells)
    return found


def _in_a_row(
    cells: Sequence[_Cell], given: Vector | None, units: Sequence[Vector]
) -> tuple[dict[str, Labels], dict[str, tuple[int, ...]], dict[str, object], tuple[Pin, ...]]:
    """What cells on top of each other make of a call: weights, what they produce, sizes, pins."""
    weights: dict[str, Labels] = {}
    produces: dict[str, tuple[int, ...]] = {}
    sizes: dict[str, object] = {}
    pins: tuple[Pin, ...] = ()
    for cell, own in zip(cells, units, strict=True):
        labels, made = cell.labels(given, own)
        weights, produces = {**weights, **labels}, {**produces, **made}
        sizes[cell.path] = own
        pins += cell.pins(own)
        given = own
    return weights, produces, sizes, pins


def _fresh_units(call: CallView, cells: Sequence[_Cell], source: LabelSource) -> list[Vector]:
    """New labels for the units of each cell; those of the last are what the layer gives."""
    return [
        source.fresh(cell.units, call.operation, "" if cell is cells[-1] else f"cell{number}")
        for number, cell in enumerate(cells, start=1)
    ]


def _states(cells: Sequence[_Cell], units: Sequence[Vector]) -> list[Vector]:
    return [own for cell, own in zip(cells, units, strict=True) for _ in range(cell.states)]


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


def _recurrent(call: CallView, inputs: tuple[Labels, ...], source: LabelSource) -> Flow:
    cells = _cells(call, call.kind, call.config)
    if cells is None:
        return pinned_flow(call, inputs, UNKNOWN_CELL)
    rank = len(call.inputs[0])
    first = call.config.get("data_format") == "channels_first" and rank > 3
    axis = 2 if first else rank - 1
    units = _fresh_units(call, cells, source)
    weights, produces, sizes, pins = _in_a_row(cells, inputs[0][axis], units)
    ties, more = _tie_states(call, inputs, _states(cells, units))
    outputs: list[Labels] = []
    sequence = 1 if call.config.get("return_sequences") else 0
    for shape, vector in zip(call.outputs, [units[-1], *_states(cells, units)], strict=False):
        # A sequence has the channels behind the steps, a state behind the batch.
        at = 1 + (sequence if not outputs else 0) if first else len(shape) - 1
        outputs.append(on_axis(len(shape), at, vector))
    return Flow(
        outputs=tuple(outputs),
        weights=weights,
        sizes=sizes,
        ties=ties,
        pins=more + pins_off_axis(inputs[0], axis, STEPS) + pins,
        produces=produces,
    )


def _bidirectional(call: CallView, inputs: tuple[Labels, ...], source: LabelSource) -> Flow:
    """Both directions lose the same units: Keras infers shapes as if they had as many."""
    both = _directions(call)
    if both is None:
        return pinned_flow(call, inputs, "it wraps layers for which there is no rule")
    counts = [[cell.units for cell in cells] for cells in both]
    if counts[0] != counts[1]:
        return pinned_flow(call, inputs, UNLIKE)
    if _is_first(call):
        return pinned_flow(call, inputs, "it joins the last axis, and its channels come first")
    units = _fresh_units(call, both[0], source)
    given, rank = inputs[0][-1], len(call.inputs[0])
    ahead, back = (_in_a_row(cells, given, units) for cells in both)
    states = _states(both[0], units) + _states(both[1], units)
    ties, pins = _tie_states(call, inputs, states)
    mode = call.config["merge_mode"]
    last = units[-1]
    first = [last, last] if mode is None else [last]
    if mode == "concat":
        first = [np.concatenate([last, last])]
    return Flow(
        outputs=tuple(
            on_axis(len(shape), len(shape) - 1, vector)
            for shape, vector in zip(call.outputs, [*first, *states], strict=False)
        ),
        weights={**ahead[0], **back[0]},
        sizes={**ahead[2], **back[2]},
        ties=ties,
        pins=pins + pins_off_axis(inputs[0], rank - 1, STEPS) + ahead[3] + back[3],
        produces={**ahead[1], **back[1]},
    )


def _is_first(call: CallView) -> bool:
    config = call.config["layer"]["config"]
    return config.get("data_format") == "channels_first" and len(call.inputs[0]) > 3


def _macs(call: CallView) -> int | None:
    """Each step multiplies what every cell reads with its kernels, at every position."""
    if call.kind == "Bidirectional":
        both = _directions(call)
        cells = None if both is None else [cell for one in both for cell in one]
        config = call.config["layer"]["config"]
    else:
        cells, config = _cells(call, call.kind, call.config), call.config
    if cells is None:
        return None
    steps = call.inputs[0][1] or 1
    return steps * _positions(call, config) * sum(cell.macs() for cell in cells)


def _positions(call: CallView, config: Mapping[str, Any]) -> int:
    """The number of positions that a convolutional cell is applied at; 1 for other cells."""
    shape = call.outputs[0][1 + bool(config.get("return_sequences")) :]
    first = config.get("data_format") == "channels_first"
    return product(shape[1:] if first else shape[:-1])


RULES: dict[str, Rule] = {
    kind: Rule(_recurrent, _macs)
    for kind in ("SimpleRNN", "GRU", "LSTM", "RNN", *(f"ConvLSTM{n}D" for n in (1, 2, 3)))
}
RULES["Bidirectional"] = Rule(_bidirectional, _macs)
