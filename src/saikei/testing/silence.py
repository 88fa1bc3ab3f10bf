"""Make channels of a graph silent: zero in every weight, setting and constant that makes them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from keras import tree

from saikei.channels import BoolMask, ChannelMap
from saikei.edits.cut import setting, with_setting
from saikei.graph import Graph, Operation
from saikei.rules import Labels
from saikei.testing.twins import with_twins


def silence(channel_map: ChannelMap, keep: BoolMask, readers: bool = False) -> Graph:
    """The graph with every weight that makes a dropped channel set to zero.

    Where a rule states that the other channels change when a silent one goes (statistics over
    channels), a twin of the operation stands in its place, which leaves the dropped ones out.

    Args:
        channel_map: A graph with its channels.
        keep: For each channel, whether it stays as it is.
        readers: Whether the weights that read dropped channels are set to zero too.
    """
    operations = {}
    for name, operation in channel_map.graph.operations.items():
        weights = {}
        for weight_name, weight in operation.weights.items():
            labels = tuple(
                vector if readers or (weight.key, axis) in channel_map.produced else None
                for axis, vector in enumerate(channel_map.weights.get(weight.key, ()))
            )
            weights[weight_name] = weight.with_array(
                _zeroed(channel_map, keep, weight.numpy(), labels)
            )
        operations[name] = replace(operation, weights=weights)
    for call, flow in zip(channel_map.graph.calls, channel_map.flows, strict=True):
        operation = operations[call.operation]
        operations[call.operation] = _silent_settings(channel_map, keep, operation, flow.settings)
    silent = replace(
        channel_map.graph, operations=operations, calls=_silent_calls(channel_map, keep)
    )
    return with_twins(silent, channel_map, keep)


# What a constant of theirs must not be, even where its channel is silent, is 0.
_DIVISIONS = frozenset(f"ops.{name}" for name in ("Divide", "TrueDivide", "FloorDivide", "Mod"))


def _zeroed(
    channel_map: ChannelMap, keep: BoolMask, array: Any, labels: Labels, value: float = 0.0
) -> np.ndarray[Any, Any]:
    """A copy of an array, zero (or another value) where its channel is dropped."""
    copy = np.array(array)
    for axis, vector in enumerate(labels):
        if vector is not None:
            np.moveaxis(copy, axis, 0)[~channel_map.kept(vector, keep)] = value
    return copy


def _silent_settings(
    channel_map: ChannelMap, keep: BoolMask, operation: Operation, settings: dict[str, Labels]
) -> Operation:
    config = operation.config
    for path, labels in settings.items():
        if config is not None:
            array = _zeroed(channel_map, keep, setting(config, path), labels)
            config = with_setting(config, path, array.tolist())
    return replace(operation, config=config)


def _silent_calls(channel_map: ChannelMap, keep: BoolMask) -> tuple[Any, ...]:
    """The calls, with constant arrays zero where their channel is dropped."""
    calls = []
    for call, flow in zip(channel_map.graph.calls, channel_map.flows, strict=True):
        leaves = call.leaves()
        divides = channel_map.graph.operations[call.operation].kind in _DIVISIONS
        for position, labels in flow.constants.items():
            value = 1.0 if divides and position > 0 else 0.0
            leaves[position] = _zeroed(channel_map, keep, leaves[position], labels, value)
        args, kwargs = tree.pack_sequence_as((call.args, dict(call.kwargs)), leaves)
        calls.append(replace(call, args=args, kwargs=kwargs) if flow.constants else call)
    return tuple(calls)
