"""The surgery: drop channels from a graph by slicing every axis that carries them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from keras import tree

from saikei.channels import BoolMask, ChannelMap
from saikei.channels.biases import REASON
from saikei.errors import EditError
from saikei.graph import Call, Graph, Operation, TensorRef, Weight
from saikei.rules import Labels


def cut(channel_map: ChannelMap, keep: BoolMask) -> Graph:
    """The graph with only the kept channels. Pure: the old graph is unchanged.

    Args:
        channel_map: A graph with its channels.
        keep: For each channel, whether it stays.

    Returns:
        A new graph whose weights, configs and constants are smaller.

    Raises:
        EditError: When a pinned channel would go, or a layer would be left without any.
    """
    check_keep(channel_map, keep)
    graph = channel_map.graph
    sizes = _new_sizes(channel_map, keep)
    factors = _factors(channel_map, keep)
    operations = {
        name: _cut_operation(channel_map, keep, operation, sizes.get(name, {}), factors)
        for name, operation in graph.operations.items()
    }
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
        for layer, channels, least in group.needs():
            if keep[channels].sum() >= least:
                continue
            if least == 1:
                raise EditError(
                    f"Layer '{layer}' would be left without any channel: keep at least one."
                )
            raise EditError(
                f"Weight '{layer}' would be left with one number along an axis, and {REASON}: "
                "keep at least two."
            )
    # Channels that no known weight carries are in no group.
    lost_pinned = np.zeros(channel_map.count, bool)
    lost_pinned[[*channel_map.reasons]] = True
    lost_pinned &= ~keep
    for start, size, layer in channel_map.blocks if lost_pinned.any() else ():
        channels = channel_map.channel_of[start : start + size]
        for channel in channels[lost_pinned[channels]][:1]:
            reason = channel_map.reasons[int(channel)]
            raise EditError(f"Layer '{layer}' cannot be cut ({reason}): exclude it.")


def _new_sizes(channel_map: ChannelMap, keep: BoolMask) -> dict[str, dict[str, object]]:
    """Config entries by layer; the calls of a shared layer agree, so the first one decides."""
    sizes: dict[str, dict[str, object]] = {}
    for call, flow in zip(channel_map.graph.calls, channel_map.flows, strict=True):
        entries = sizes.setdefault(call.operation, {})
        for key, value in flow.sizes.items():
            entries.setdefault(key, _count(channel_map, keep, value))
        config = channel_map.graph.operations[call.operation].config or {}
        for key, labels in flow.settings.items():
            if key not in entries:
                entries[key] = _cut_setting(channel_map, keep, setting(config, key), labels)
    return sizes


def setting(config: Mapping[str, Any], path: str) -> Any:
    """A config entry; `"a/b"` is the entry `b` of the entry `a`, `"a/0"` the first in a list."""
    value: Any = config
    for part in path.split("/"):
        value = value[int(part)] if isinstance(value, (list, tuple)) else value[part]
    return value


def with_setting(config: Mapping[str, Any], path: str, value: object) -> dict[str, Any]:
    """The config with one entry replaced, perhaps of a config within it."""
    changed: dict[str, Any] = _with_entry(config, path.split("/"), value)
    return changed


def _with_entry(whole: Any, path: list[str], value: object) -> Any:
    if not path:
        return value
    first, *rest = path
    if isinstance(whole, (list, tuple)):
        at = int(first)
        return [_with_entry(v, rest, value) if i == at else v for i, v in enumerate(whole)]
    return {**whole, first: _with_entry(whole[first], rest, value)}


def _cut_setting(channel_map: ChannelMap, keep: BoolMask, value: Any, labels: Labels) -> Any:
    """An array of a config; lists stay lists, so that the config can be saved."""
    array = _slice(channel_map, keep, np.asarray(value), labels)
    return array if isinstance(value, np.ndarray) else array.tolist()


def _count(channel_map: ChannelMap, keep: BoolMask, value: object) -> object:
    if isinstance(value, tuple):
        return tuple(_count(channel_map, keep, entry) for entry in value)
    if isinstance(value, slice):
        ends = (value.start, value.stop, value.step)
        return slice(*(_count(channel_map, keep, end) for end in ends))
    if isinstance(value, np.ndarray):
        return int(channel_map.kept(value, keep).sum())
    return value


def _factors(channel_map: ChannelMap, keep: BoolMask) -> dict[int, float]:
    """By what the numbers of a variable are multiplied; its first call decides."""
    factors: dict[int, float] = {}
    for call, flow in zip(channel_map.graph.calls, channel_map.flows, strict=True):
        weights = channel_map.graph.operations[call.operation].weights
        for rescale in flow.rescale:
            kept = channel_map.kept(rescale.labels, keep)
            factor = float(kept.mean() ** rescale.power)
            for name in rescale.weights:
                factors.setdefault(weights[name].key, factor)
    return factors


def _cut_operation(
    channel_map: ChannelMap,
    keep: BoolMask,
    operation: Operation,
    sizes: dict[str, object],
    factors: dict[int, float],
) -> Operation:
    weights: dict[str, Weight] = {}
    for name, weight in operation.weights.items():
        labels = channel_map.weights.get(weight.key, ())
        factor = factors.get(weight.key, 1.0)
        if factor == 1.0 and all(v is None or channel_map.kept(v, keep).all() for v in labels):
            weights[name] = weight
            continue
        array = _slice(channel_map, keep, weight.numpy(), labels)
        weights[name] = weight.with_array(
            array if factor == 1.0 else (array * factor).astype(array.dtype)
        )
    config = operation.config
    if config is not None:
        for path, value in sizes.items():
            config = with_setting(config, path, value)
    return replace(operation, weights=weights, config=config)


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
        replace(spec, shape=channel_map.shape(TensorRef(index, i), keep))
        for i, spec in enumerate(call.outputs)
    )
    if not flow.constants and not flow.arguments:
        return replace(call, outputs=outputs)
    leaves = call.leaves()
    for position, labels in flow.constants.items():
        leaves[position] = _slice(channel_map, keep, np.asarray(leaves[position]), labels)
    for position, value in flow.arguments.items():
        leaves[position] = _count(channel_map, keep, value)
    args, kwargs = tree.pack_sequence_as((call.args, dict(call.kwargs)), leaves)
    return replace(call, args=args, kwargs=kwargs, outputs=outputs)
