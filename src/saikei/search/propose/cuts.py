"""The cuts of channels that a site offers, as masks over the channels of the graph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from saikei.channels import BoolMask, ChannelMap
from saikei.edits.drop_channels import DropChannels
from saikei.search.library import Measured
from saikei.search.propose.space import Array


@dataclass(frozen=True)
class Cuts:
    """The cuts of one site.

    Args:
        masks: For each option, whether each channel of the graph stays.
        members: The channels of the group.
        counts: How many of them each level keeps; level 0 keeps all.
    """

    masks: tuple[BoolMask, ...] = field(repr=False)
    members: np.ndarray = field(repr=False)
    counts: Array

    @property
    def narrowest(self) -> BoolMask:
        """The mask of the option that keeps least."""
        return self.masks[int(np.argmin(self.counts[1:]))]

    @property
    def kept(self) -> Array:
        """The share of the channels that each level keeps."""
        return np.asarray(self.counts / self.counts[0])

    @property
    def position(self) -> Array:
        """Each level between the narrowest option (0) and the whole group (1)."""
        low = self.counts.min()
        return np.asarray((self.counts - low) / max(self.counts[0] - low, 1.0))


def cuts_of(channel_map: ChannelMap, entries: Sequence[Measured]) -> Cuts | None:
    """The cuts that the options of a site make; `None` where some are other edits.

    Args:
        channel_map: The original graph with its channels.
        entries: The options of one site.
    """
    edits = [entry.option.edit for entry in entries]
    cuts = [edit for edit in edits if isinstance(edit, DropChannels)]
    if not cuts or len(cuts) < len(edits):
        return None
    masks = tuple(mask_of(channel_map, edit) for edit in cuts)
    touched = ~np.logical_and.reduce(masks)
    groups = [group.channels for group in channel_map.groups if touched[group.channels].any()]
    members = np.unique(np.concatenate(groups))
    counts = [len(members), *(int(mask[members].sum()) for mask in masks)]
    return Cuts(masks, members, np.array(counts, dtype=np.float64))


def mask_of(channel_map: ChannelMap, edit: DropChannels) -> BoolMask:
    """For each channel, whether a cut leaves it; layers that are not in the graph are skipped."""
    starts = {owner: start for start, _, owner in channel_map.blocks}
    keep = np.ones(channel_map.count, dtype=bool)
    for layer, indices in edit.channels.items():
        if layer not in starts:
            continue
        keep[channel_map.channel_of[starts[layer] + np.array(indices, dtype=np.int64)]] = False
    return keep
