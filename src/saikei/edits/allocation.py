"""How many channels each group keeps, and which: from scores to a mask."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from saikei.channels import BoolMask, ChannelGroup, ChannelMap
from saikei.edits.attention_heads import groups_of_heads, heads_filling
from saikei.importance import Scores

# In global scope no group falls below this part of the share that it would keep on average:
# a single narrow layer would otherwise throttle the whole network.
FLOOR = 0.25


def keep_per_layer(
    channel_map: ChannelMap,
    groups: Sequence[ChannelGroup],
    scores: Scores,
    keep: float | int,
    multiple_of: int,
) -> BoolMask:
    """Keep the same share, or the same number, of every group.

    Args:
        channel_map: A graph with its channels.
        groups: The groups that may be cut.
        scores: Importance of each channel.
        keep: A share of each group, or a number of channels.
        multiple_of: Kept numbers are rounded to multiples of it where the group allows.
    """
    mask = np.ones(channel_map.count, dtype=bool)
    for group in groups:
        wanted = keep * group.size if isinstance(keep, float) else min(keep, group.size)
        _keep_best(mask, group, scores, wanted, multiple_of)
    return mask


def keep_uniformly(
    channel_map: ChannelMap,
    groups: Sequence[ChannelGroup],
    scores: Scores,
    keep: float | int,
    multiple_of: int,
    heads_keep: float | None = None,
) -> BoolMask:
    """Keep the same share of every group, and the ratio of heads to the width that they read.

    Args:
        channel_map: A graph with its channels.
        groups: The groups that may be cut, without those of the sizes of heads.
        scores: Importance of each channel.
        keep: A share of each group, or a number of channels.
        multiple_of: Kept numbers are rounded to multiples of it where the group allows.
        heads_keep: Another share for heads, of which there are few; `None` for the same.
    """
    mask = keep_per_layer(channel_map, groups, scores, keep, multiple_of)
    if heads_keep is not None:
        for group in groups_of_heads(channel_map, groups):
            mask[group.channels] = True
            _keep_best(mask, group, scores, heads_keep * group.size, 1)
    for heads, stream in heads_filling(channel_map, groups):
        left = mask[heads.channels].sum() / heads.size
        mask[stream.channels] = True
        _keep_best(mask, stream, scores, left * stream.size, 1)
    return mask


def keep_globally(
    channel_map: ChannelMap,
    groups: Sequence[ChannelGroup],
    scores: Scores,
    keep: float | int,
    multiple_of: int,
) -> BoolMask:
    """Keep the best channels of all groups together.

    Args:
        channel_map: A graph with its channels.
        groups: The groups that may be cut.
        scores: Importance of each channel, comparable between groups.
        keep: A share of all their channels, or a number of channels.
        multiple_of: Kept numbers are rounded to multiples of it where the group allows.
    """
    mask = np.ones(channel_map.count, dtype=bool)
    if not groups:
        return mask
    pool = np.concatenate([group.channels for group in groups])
    share = keep if isinstance(keep, float) else min(keep / len(pool), 1.0)
    count = max(1, round(share * len(pool)))
    # Stable sort: equal scores fall by channel number, on every platform alike.
    best = pool[np.argsort(-scores[pool], kind="stable")[:count]]
    chosen = np.zeros(channel_map.count, dtype=bool)
    chosen[best] = True
    for group in groups:
        wanted = max(float(chosen[group.channels].sum()), FLOOR * share * group.size)
        _keep_best(mask, group, scores, wanted, multiple_of)
    return mask


def keep_in_order(
    channel_map: ChannelMap,
    groups: Sequence[ChannelGroup],
    scores: Scores,
    order: NDArray[np.int64],
    keep: float | int,
    multiple_of: int,
) -> BoolMask:
    """Keep all but the first channels of an order.

    Args:
        channel_map: A graph with its channels.
        groups: The groups that may be cut.
        scores: Importance of each channel, which within a group the order follows.
        order: The channels that may go, first those that go first; see `removal_order`.
        keep: A share of the order that stays, or a number of channels.
        multiple_of: Kept numbers are rounded to multiples of it where the group allows.
    """
    share = keep if isinstance(keep, float) else min(keep / max(len(order), 1), 1.0)
    gone = np.zeros(channel_map.count, dtype=bool)
    gone[order[: round((1 - share) * len(order))]] = True
    mask = ~gone
    if multiple_of > 1:
        for group in groups:
            wanted = float((~gone[group.channels]).sum())
            mask[group.channels] = True
            _keep_best(mask, group, scores, wanted, multiple_of)
    return mask


def _keep_best(
    mask: BoolMask, group: ChannelGroup, scores: Scores, wanted: float, multiple_of: int
) -> None:
    """Leave the best `wanted` channels of a group in the mask, pinned ones first."""
    count = _rounded(wanted, group.size, multiple_of)
    pinned, free = group.channels[~group.free], group.channels[group.free]
    kept = max(count - len(pinned), 0)
    order = free[np.argsort(-scores[free], kind="stable")]
    mask[order[kept:]] = False
    for _, channels, least in group.needs():
        best = iter(channels[np.argsort(-scores[channels], kind="stable")])
        while mask[channels].sum() < least:
            mask[next(best)] = True


def _rounded(wanted: float, size: int, multiple_of: int) -> int:
    if multiple_of == 1 or size < multiple_of:
        return max(1, min(size, round(wanted)))
    count = max(1, round(wanted / multiple_of)) * multiple_of
    return min(count, size)


# By the name of the scope.
ALLOCATIONS = {"global": keep_globally, "layer": keep_per_layer, "uniform": keep_uniformly}
