"""The surgery: drop channels from a graph by slicing every axis that carries them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from keras import tree

from saikei.channels import BoolMask, ChannelMap
from saikei.errors import EditError
from saikei.graph import Call, Graph, Operation, TensorRef, TensorSpec, Weight
from saikei.rules import Labels


def cut(channel_map: ChannelMap, keep: BoolMask) -> Graph:
    """The graph with only the kept channels. Pure: the old graph is unchanged.

    Args:
        channel_map: a graph with its channels.
        keep: for each channel, whether it stays.

    Returns:
        A new graph whose weights, configs and constants are smaller.

    Raises:
        EditError: when a pinned channel would go, or a layer would be left without any.
    """
    check_keep(channel_map, keep)
    graph = channel_map.graph
    sizes = _new_sizes(channel_map, keep)
    operations = {
        name: _cut_operation(channel_map, keep, operation, sizes.get(name, {}))
        for name, operation in graph.operations.items()
    }
    _rescale(channel_map, keep, operations)
    calls = tuple(_cut_call(channel_map, keep, index) for index in range(len(graph.calls)))
    return replace(graph, operations=operations, calls=calls)


def check_keep(channel_map: ChannelMap, keep: BoolMask) -> None:
    """Refuse a mask that cuts what is pinned or leaves a layer without channels."""
    if keep.shape != (channel_map.count,):
        raise EditError(
            f"The mask has {keep.size} entries for {channel_map.count} channels: give one each."
        )
    for group in channel_map.groups:
        lost = [int(c) for c in group.channels[~keep[group.channels] & ~group.free]]
        if lost:
            reason = channel_map.reasons[lost[0]]
            raise EditError(
                f"Channel {lost[0]} of group '{group.name}' cannot be cut ({reason}): exclude it."
            )
        for layer, channels in group.blocks.items():
            if not keep[channels].any():
                raise EditError(
                    f"Layer '{layer}' would be left without any channel: keep at least one."
                )


def _new_sizes(channel_map: ChannelMap, keep: BoolMask) -> dict[str, dict[str, object]]:
    """Config entries by layer; the calls of a shared layer agree, so the first one decides."""
    sizes: dict[str, dict[str, object]] = {}
    for call, flow in zip(channel_map.graph.calls, channel_map.flows, strict=True):
        entries = sizes.setdefault(call.operation, {})
        for key, value in flow.sizes.items():
            entries.setdefault(key, _count(channel_map, keep, value))
    return sizes


def _count(channel_map: ChannelMap, keep: BoolMask, value: object) -> object:
    if isinstance(value, tuple):
        return tuple(_count(channel_map, keep, entry) for entry in value)
    if isinstance(value, dict):
        return {key: _count(channel_map, keep, entry) for key, entry in value.items()}
    if isinstance(value, np.ndarray):
        return int(channel_map.kept(value, keep).sum())
    return value


def _cut_operation(
    channel_map: ChannelMap, keep: BoolMask, operation: Operation, sizes: dict[str, object]
) -> Operation:
    weights: dict[str, Weight] = {}
    for name, weight in operation.weights.items():
        labels = channel_map.weights.get(weight.key, ())
        if all(v is None or channel_map.kept(v, keep).all() for v in labels):
            weights[name] = weight
        else:
            weights[name] = weight.with_array(_slice(channel_map, keep, weight.numpy(), labels))
    config = operation.config
    if config is not None and sizes:
        config = _merged(config, sizes)
    return replace(operation, weights=weights, config=config)


def _merged(config: Mapping[str, Any], sizes: Mapping[str, object]) -> dict[str, Any]:
    """The config with new sizes in it; those in a dictionary are of a nested config."""
    merged = dict(config)
    for key, value in sizes.items():
        merged[key] = _merged(config[key], value) if isinstance(value, dict) else value
    return merged


def _rescale(channel_map: ChannelMap, keep: BoolMask, operations: dict[str, Operation]) -> None:
    """Multiply the weights of layers that divide by a number of channels."""
    done: set[str] = set()
    for call, flow in zip(channel_map.graph.calls, channel_map.flows, strict=True):
        if call.operation in done:
            continue
        done.add(call.operation)
        operation = operations[call.operation]
        weights = dict(operation.weights)
        for name, (vector, power) in flow.rescale.items():
            share = float(channel_map.kept(vector, keep).mean())
            if share < 1:
                array = weights[name].numpy()
                scaled = array * np.asarray(share**power, dtype=array.dtype)
                weights[name] = weights[name].with_array(scaled)
        operations[call.operation] = replace(operation, weights=weights)


def _slice(
    channel_map: ChannelMap, keep: BoolMask, array: np.ndarray[Any, Any], labels: Labels
) -> np.ndarray[Any, Any]:
    for axis, vector in enumerate(labels):
        if vector is not None:
            array = np.compress(channel_map.kept(vector, keep), array, axis=axis)
    return array


def _cut_call(channel_map: ChannelMap, keep: BoolMask, index: int) -> Call:
    call, flow = channel_map.graph.calls[index], channel_map.flows[index]
    outputs = tuple(
        TensorSpec(channel_map.shape(TensorRef(index, i), keep), spec.dtype)
        for i, spec in enumerate(call.outputs)
    )
    if not flow.constants:
        return replace(call, outputs=outputs)
    leaves = call.leaves()
    for position, labels in flow.constants.items():
        leaves[position] = _slice(channel_map, keep, np.asarray(leaves[position]), labels)
    args, kwargs = tree.pack_sequence_as((call.args, dict(call.kwargs)), leaves)
    return replace(call, args=args, kwargs=kwargs, outputs=outputs)
