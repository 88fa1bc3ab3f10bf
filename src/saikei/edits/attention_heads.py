"""Which channel groups are heads of attention, sizes of heads, and the width that heads read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from saikei.channels import ChannelGroup, ChannelMap


@dataclass(frozen=True)
class _Heads:
    """The kernel of a layer whose outputs are heads: the groups of its axes."""

    count: ChannelGroup
    size: ChannelGroup
    reads: ChannelGroup | None
    fill: bool


def uniform_groups(
    channel_map: ChannelMap, groups: Sequence[ChannelGroup], named: bool
) -> list[ChannelGroup]:
    """The groups of which whole heads go, and no part of one.

    Where heads together are as wide as what they read, and that stays, they stay too: their size
    often follows from these two numbers.

    Args:
        channel_map: A graph with its channels.
        groups: The groups that may be cut.
        named: Whether the groups were chosen by name; heads go then whatever they read.
    """
    found = list(_heads(channel_map))
    stay = {one.size.name for one in found}
    chosen = {group.name for group in groups}
    if not named:
        stay |= {
            one.count.name
            for one in found
            if one.fill and one.reads is not None and one.reads.name not in chosen
        }
    return [group for group in groups if group.name not in stay]


def groups_of_heads(channel_map: ChannelMap, groups: Sequence[ChannelGroup]) -> list[ChannelGroup]:
    """The groups of whole heads, each once."""
    names = {one.count.name for one in _heads(channel_map)}
    return [group for group in groups if group.name in names]


def heads_filling(
    channel_map: ChannelMap, groups: Sequence[ChannelGroup]
) -> Iterator[tuple[ChannelGroup, ChannelGroup]]:
    """Groups of heads with the group of the width that they read and are as wide as together.

    Args:
        channel_map: A graph with its channels.
        groups: The groups that may be cut; pairs of others are left out.
    """
    chosen = {group.name for group in groups}
    for one in _heads(channel_map):
        if one.fill and one.reads is not None and {one.count.name, one.reads.name} <= chosen:
            yield one.count, one.reads


def _heads(channel_map: ChannelMap) -> Iterator[_Heads]:
    """The kernels of which two axes make channels, the number of heads and their size."""
    axes: dict[tuple[str, str], dict[int, tuple[ChannelGroup, bool]]] = {}
    for group in channel_map.groups:
        for member in group.members:
            at = axes.setdefault((member.operation, member.weight), {})
            at[member.axis] = (group, member.produces)
    for (operation, name), at in axes.items():
        made = [axis for axis in sorted(at) if at[axis][1]]
        shape = channel_map.graph.operations[operation].weights[name].shape
        if len(shape) != 3 or len(made) != 2:
            continue
        (read,) = {0, 1, 2} - set(made)
        reads = at[read][0] if read in at else None
        fill = shape[made[0]] * shape[made[1]] == shape[read]
        yield _Heads(at[made[0]][0], at[made[1]][0], reads, fill)
