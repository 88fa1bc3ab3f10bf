"""What a layer rule is, and what it is shown of a call."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from saikei.arguments import Checked
from saikei.rules.labels import Flow, Labels, LabelSource, pin_all

Shape = tuple[int | None, ...]


@dataclass(frozen=True)
class CallView:
    """One call of an operation, as a rule sees it: shapes and settings, no Keras objects.

    Args:
        operation: The operation's name.
        kind: The class of the layer, or the name of the operation.
        config: The settings of the layer, as in `get_config()`.
        weights: The shape of each weight.
        inputs: The shape of each input tensor, batch axis first.
        outputs: The shape of each output tensor.
        arguments: All arguments, flattened; `None` stands where a tensor is.
        tensor_positions: The positions of the inputs in `arguments`.
        slots: For each of `arguments`, the number of the positional argument or the name of the
            keyword argument that it belongs to.
    """

    operation: str
    kind: str
    config: Mapping[str, Any]
    weights: Mapping[str, Shape]
    inputs: tuple[Shape, ...]
    outputs: tuple[Shape, ...]
    arguments: tuple[Any, ...] = ()
    tensor_positions: tuple[int, ...] = ()
    slots: tuple[int | str, ...] = ()

    def find(self, name: str, position: int) -> tuple[int, ...]:
        """The positions in `arguments` of an argument, given by name or by position."""
        return tuple(at for at, slot in enumerate(self.slots) if slot in (name, position))

    def tensors(self, name: str, position: int) -> tuple[int, ...]:
        """Which of `inputs` an argument is, given by name or by position."""
        found = self.find(name, position)
        return tuple(i for i, at in enumerate(self.tensor_positions) if at in found)

    def value(self, name: str, position: int, default: Any = None) -> Any:
        """An argument that is no tensor, given by name or by position."""
        found = [at for at in self.find(name, position) if at not in self.tensor_positions]
        return self.arguments[found[0]] if found else default

    def arrays(self) -> dict[int, Any]:
        """The arguments that are constant arrays, by their flat position."""
        return {
            at: value
            for at, value in enumerate(self.arguments)
            if at not in self.tensor_positions and is_array(value)
        }

    def positions(self, shape: Shape) -> int:
        """Product of all axes but the batch and the last; unknown ones count as 1."""
        return product(shape[1:-1])


FlowFunction = Callable[[CallView, tuple[Labels, ...], LabelSource], Flow]
CostFunction = Callable[[CallView], int | None]


@dataclass(frozen=True)
class Rule(Checked):
    """How the labels of a kind of operation pass, and what a call of it costs.

    Args:
        flow: Function from a call and the labels of its inputs to a `Flow`.
        macs: Multiply-accumulates of one call for one index of the first axis of its first input,
            which is a sample as a rule. Operations that only add, compare or move values count
            none, as is the custom; `None` where they are not known.
    """

    flow: FlowFunction
    macs: CostFunction


def is_array(value: Any) -> bool:
    """Whether a constant argument is an array with at least one axis."""
    return not isinstance(value, (str, slice, type(Ellipsis))) and len(np.shape(value)) > 0


def no_macs(call: CallView) -> int:
    """The cost of operations that do not multiply and accumulate."""
    return 0


def product(shape: Shape) -> int:
    """Product of the axes; unknown ones count as 1."""
    total = 1
    for size in shape:
        total *= size or 1
    return total


def unlabelled(shape: Shape) -> Labels:
    """Labels of a tensor none of whose axes can be cut."""
    return (None,) * len(shape)


def pinned_flow(call: CallView, inputs: tuple[Labels, ...], reason: str) -> Flow:
    """The flow of a call whose inputs and outputs keep all of their channels.

    Args:
        call: The call.
        inputs: The labels of each of its inputs.
        reason: Why nothing can be cut, as `profile` and `channel_groups` show it.
    """
    return Flow(
        outputs=tuple(unlabelled(shape) for shape in call.outputs),
        pins=pin_all(inputs, reason),
        whole=reason,
    )


def axes_of(axis: Any, rank: int) -> set[int]:
    """A config's axis or axes as positions in `range(rank)`; all of them for `None`."""
    if axis is None:
        return set(range(rank))
    return {int(a) % rank for a in (axis if isinstance(axis, (list, tuple)) else (axis,))}


def axis_of(config_axis: int, rank: int) -> int:
    """A possibly negative axis as a position in `range(rank)`."""
    return config_axis % rank


def channel_axis(call: CallView, rank: int) -> int:
    """The channel axis by the `data_format` in the call's config."""
    return 1 if call.config.get("data_format") == "channels_first" else rank - 1


def on_axis(rank: int, axis: int, vector: Any) -> Labels:
    """Labels that have `vector` on one axis and nothing elsewhere."""
    return tuple(vector if position == axis else None for position in range(rank))
