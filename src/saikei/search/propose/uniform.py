"""Structures of uniform shape: every group of channels keeps the same share.

As in `PruneChannels(scope="uniform")`, whole heads of attention go, and where heads together are as
wide as what they read, the width goes with their number. So blocks of a transformer stay alike.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from saikei.budget import Budget
from saikei.channels import ChannelMap
from saikei.costs import Counts, count_costs
from saikei.edits.attention_heads import heads_filling, uniform_groups
from saikei.edits.depth.find import find_units
from saikei.edits.drop_channels import DropChannels
from saikei.edits.options import Option
from saikei.graph import Graph
from saikei.search.library import Library, Measured
from saikei.search.propose.cuts import Cuts, cuts_of, mask_of

# Halvings of the share.
STEPS = 12


def uniform_options(
    channel_map: ChannelMap, library: Library, budget: Budget, original: Counts
) -> tuple[tuple[Option, ...], float] | None:
    """The widest uniform cut within a budget's limits on what is counted.

    Args:
        channel_map: The graph that is cut, with its channels: the original, or without some of
            its blocks.
        library: The library of the original, whose options rank the channels.
        budget: The budget; a limit on latency is not looked at.
        original: What the original costs.

    Returns:
        The cut of each group as an option, and the loss that is predicted by those of the
        library's options; `None` where no uniform cut keeps the budget.
    """
    limits = budget.counted()
    groups = _groups(channel_map, library)
    if limits is None or not groups:
        return None

    def fits(share: float) -> bool:
        keep = np.logical_and.reduce([mask_of(channel_map, g.edit(share)) for g in groups])
        return limits.fits(count_costs(channel_map, keep), original)

    low, high = 0.0, 1.0
    if not fits(low):
        return None
    for _ in range(STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    options = tuple(g.option(low) for g in groups if any(g.edit(low).channels.values()))
    return options, sum(g.loss(low) for g in groups)


def least_blocks(graph: Graph, library: Library) -> tuple[Measured, ...]:
    """The parts of a quarter of the blocks, those that lose least alone; at least one block.

    Args:
        graph: The original graph.
        library: Its library.

    Returns:
        An option for each part, attention and feed-forward; none of a graph without two blocks.
    """
    entries = {entry.option.site: entry for entry in library.entries}
    units = find_units(graph, ("residual", "block"))
    parts = [unit for unit in units if unit.kind == "residual"]
    blocks = []
    for block in units:
        within = [entries.get(f"block:{part.name}") for part in parts if block.contains(part)]
        known = [one for one in within if one is not None]
        if known and len(known) == len(within):
            blocks.append(known)
    if len(blocks) < 2:
        return ()
    blocks.sort(key=lambda block: sum(one.loss for one in block))
    return tuple(one for block in blocks[: max(1, len(blocks) // 4)] for one in block)


def _groups(channel_map: ChannelMap, library: Library) -> list[_Group]:
    """The groups that may be cut; the width that heads read goes with their number."""
    free = [group for group in channel_map.groups if not group.pinned]
    chosen = uniform_groups(channel_map, free, named=False)
    allowed = {int(channel) for group in chosen for channel in group.channels}
    found = []
    for entries in library.sites.values():
        if any(set(entry.option.layers) & channel_map.graph.operations.keys() for entry in entries):
            cuts = cuts_of(channel_map, entries)
            if cuts is not None and allowed.issuperset(map(int, cuts.members)):
                found.append(_Group(channel_map, entries, cuts))
    of_channel = {channel: group for group in found for channel in group.members}
    for heads, stream in heads_filling(channel_map, channel_map.groups):
        own, read = (of_channel.get(int(group.channels[0])) for group in (heads, stream))
        if own is None:
            # Heads of which none can go keep the width that they read.
            found = [group for group in found if group is not read]
        elif read is not None:
            # So do others of that width, such as a pooler, which classes take for the same.
            for group in found:
                if group.size == read.size and group is not own:
                    group.heads = own
    return found


class _Group:
    """The cuts of one group at any share, between those that its options make."""

    # The heads that read it, where it is as wide as they are together.
    heads: _Group | None = None

    def __init__(self, channel_map: ChannelMap, entries: Sequence[Measured], cuts: Cuts) -> None:
        self.first = entries[0].option
        self.members = frozenset(map(int, cuts.members))
        order = np.argsort(-cuts.counts[1:], kind="stable")
        self.size = len(cuts.members)
        self.kept = np.array([self.size, *cuts.counts[1:][order]])
        self.losses = np.array([0.0, *(max(entries[i].loss, 0.0) for i in order)])
        self.dropped = self._order(cuts.members, [cuts.masks[i] for i in order])
        self._layers = self._positions(channel_map)

    def _order(self, members: np.ndarray, masks: Sequence[np.ndarray]) -> list[int]:
        """Channels in the order in which the options remove them."""
        gone: list[int] = []
        for mask in masks:
            gone += [int(c) for c in members[~mask[members]] if int(c) not in gone]
        return gone

    def _positions(self, channel_map: ChannelMap) -> dict[int, list[tuple[str, int]]]:
        """For each channel, the layers that have it and its index in them."""
        found: dict[int, list[tuple[str, int]]] = defaultdict(list)
        for start, size, owner in channel_map.blocks:
            for index, channel in enumerate(channel_map.channel_of[start : start + size]):
                found[int(channel)].append((owner, index))
        return found

    def _count(self, share: float) -> int:
        if self.heads is not None:
            share = self.heads._count(share) / self.heads.size
        return max(self.size - len(self.dropped), min(self.size, round(share * self.size)))

    def edit(self, share: float) -> DropChannels:
        """The cut that keeps a share of the group, or what its narrowest option keeps."""
        channels: dict[str, list[int]] = defaultdict(list)
        for channel in self.dropped[: self.size - self._count(share)]:
            for owner, index in self._layers[channel]:
                channels[owner].append(index)
        return DropChannels({owner: tuple(sorted(found)) for owner, found in channels.items()})

    def option(self, share: float) -> Option:
        """The cut as an option."""
        change = f"{self._count(share)} of {self.size} channels"
        return Option(
            self.first.site, self.first.method, change, self.edit(share), self.first.layers
        )

    def loss(self, share: float) -> float:
        """The predicted loss, between those of the options."""
        order = np.argsort(self.kept)
        return float(np.interp(self._count(share), self.kept[order], self.losses[order]))
