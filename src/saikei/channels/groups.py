"""Channel groups: the layers whose channels are tied, as values and as a table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from saikei.columns import in_columns
from saikei.rules.labels import Vector

if TYPE_CHECKING:
    from saikei.channels.channel_map import ChannelMap


@dataclass(frozen=True)
class Member:
    """One axis of one weight that carries a group's channels.

    Args:
        operation: the layer's name.
        weight: the weight's name in the layer.
        axis: which axis of the weight.
        channels: for each index of the axis, its channel's number.
        produces: whether the layer makes these channels (a kernel's output axis, a bias, a
            scale) rather than reads them.
    """

    operation: str
    weight: str
    axis: int
    channels: Vector = field(repr=False)
    produces: bool


@dataclass(frozen=True)
class ChannelGroup:
    """Channels that layers share.

    Args:
        name: the layer that makes the channels first.
        channels: their numbers, in that layer's order.
        blocks: for each layer that makes some of them, which; at least one of each block has
            to stay.
        members: the weight axes that carry them.
        pinned: why none of them can be cut; `None` where some can.
        free: which of the channels can be cut.
        pairs: for axes of which at least two indices have to stay, the weight and the channel of
            each index.
    """

    name: str
    channels: Vector = field(repr=False)
    blocks: Mapping[str, Vector] = field(repr=False)
    members: tuple[Member, ...] = field(repr=False)
    pinned: str | None
    free: NDArray[np.bool_] = field(repr=False)
    pairs: tuple[tuple[str, Vector], ...] = field(default=(), repr=False)

    def needs(self) -> Iterator[tuple[str, Vector, int]]:
        """What has to stay: of which channels (with repeats) how many, and whose they are."""
        yield from ((name, channels, 1) for name, channels in self.blocks.items())
        yield from ((name, channels, 2) for name, channels in self.pairs)

    @property
    def size(self) -> int:
        """How many channels the group has."""
        return len(self.channels)

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers that carry the channels, in the order of the graph."""
        return tuple(dict.fromkeys(member.operation for member in self.members))

    @property
    def layers_made(self) -> tuple[str, ...]:
        """The layers that make some of the channels."""
        return tuple(dict.fromkeys(m.operation for m in self.members if m.produces))


class ChannelGroups(tuple[ChannelGroup, ...]):
    """The channel groups of a model; printed, they are a table."""

    __slots__ = ()

    def __str__(self) -> str:
        rows = [("group", "channels", "can be cut", "layers")]
        for group in self:
            free = "no" if group.pinned else f"{int(group.free.sum())}"
            layers = ", ".join(group.layers)
            rows.append((group.name, str(group.size), free, layers + _because(group.pinned)))
        return in_columns(rows)


def _because(reason: str | None) -> str:
    return "" if reason is None else f" [pinned: {reason}]"


def find_groups(channel_map: ChannelMap) -> tuple[ChannelGroup, ...]:
    """The groups of a graph: blocks of labels that share a channel belong together."""
    blocks = channel_map.blocks
    if not blocks:
        return ()
    count = channel_map.count
    sizes = np.array([size for _, size, _ in blocks])
    block_of = np.repeat(np.arange(len(blocks)), sizes)
    total = len(blocks) + count
    edges = (block_of, len(blocks) + channel_map.channel_of)
    adjacency = coo_matrix((np.ones(len(block_of), np.int8), edges), shape=(total, total))
    _, component = connected_components(adjacency, directed=False)
    members = _members(channel_map, component[len(blocks) :])
    found: dict[int, list[int]] = {}
    for block in range(len(blocks)):
        found.setdefault(int(component[block]), []).append(block)
    groups = [
        _group(channel_map, [blocks[b] for b in own], tuple(members.get(key, ())))
        for key, own in found.items()
    ]
    pairs: dict[int, list[tuple[str, Vector]]] = {}
    for name, channels in channel_map.pairs:
        pairs.setdefault(int(component[len(blocks) + channels[0]]), []).append((name, channels))
    keys = list(found)
    return tuple(
        replace(group, pairs=tuple(pairs.get(key, ())))
        for key, group in zip(keys, groups, strict=True)
        if group.members
    )


def _group(
    channel_map: ChannelMap, blocks: list[tuple[int, int, str]], members: tuple[Member, ...]
) -> ChannelGroup:
    by_block: dict[str, Vector] = {}
    for start, size, owner in blocks:
        channels = np.unique(channel_map.channel_of[start : start + size])
        name = owner if owner not in by_block else f"{owner}#{start}"
        by_block[name] = channels
    joined = np.concatenate(
        [channel_map.channel_of[start : start + size] for start, size, _ in blocks]
    )
    _, first = np.unique(joined, return_index=True)
    channels = joined[np.sort(first)]
    free = np.array([int(channel) not in channel_map.reasons for channel in channels], dtype=bool)
    pinned = None if free.any() else channel_map.reasons[int(channels[0])]
    return ChannelGroup(next(iter(by_block)), channels, by_block, members, pinned, free)


def _members(channel_map: ChannelMap, group_of: Vector) -> dict[int, list[Member]]:
    """The weight axes of each group, tied variables once."""
    members: dict[int, list[Member]] = {}
    for operation, name, key, axis, channels in channel_map.weight_axes():
        member = Member(operation, name, axis, channels, (key, axis) in channel_map.produced)
        for group in np.unique(group_of[channels]):
            members.setdefault(int(group), []).append(member)
    return members
