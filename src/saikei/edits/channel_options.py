"""What pruning offers to the search: for each group of channels, several numbers that stay."""

from __future__ import annotations

from typing import Any

import numpy as np

from saikei.calibration.samples import calibration_samples
from saikei.channels import ChannelGroup, ChannelMap, map_channels
from saikei.edits.allocation import keep_per_layer
from saikei.edits.base import Option
from saikei.edits.drop_channels import dropped
from saikei.graph import Graph
from saikei.importance import CRITERIA, Scores
from saikei.importance.reconstruction import reconstruction

METHOD = "prune"
# Shares of a group's channels that stay; a model with many groups gets every other one.
SHARES = (0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125)
MANY = 16
# Samples that the errors of reconstruction are measured on.
SAMPLES = 256
# Work of an elimination, channels³ × readers, above which a group is ranked by magnitude.
WIDE = 1e9


def channel_options(graph: Graph, data: Any) -> tuple[Option, ...]:
    """For each group of channels, several numbers of them that stay.

    Args:
        graph: The graph of the model.
        data: What `keras.Model.fit` takes; `None` ranks channels by their weights alone.
    """
    channel_map = map_channels(graph)
    groups = [group for group in channel_map.groups if not group.pinned and group.size > 1]
    if not groups:
        return ()
    scores = _scores(channel_map, groups, data)
    shares = SHARES if len(groups) <= MANY else SHARES[1::2]
    options: list[Option] = []
    for group in groups:
        known = set[int]()
        for share in shares:
            count = max(1, round(share * group.size))
            mask = keep_per_layer(channel_map, [group], scores, count, 1)
            left = int(mask[group.channels].sum())
            if left < group.size and left not in known:
                known.add(left)
                change = f"{left} of {group.size} channels"
                edit = dropped(channel_map, mask)
                site = f"channels:{group.name}"
                options.append(Option(site, METHOD, change, edit, group.layers_made))
    return tuple(options)


def _scores(channel_map: ChannelMap, groups: list[ChannelGroup], data: Any) -> Scores:
    """The importance of every channel, comparable within a group."""
    generator = np.random.default_rng(0)
    scores = CRITERIA["magnitude"].score(channel_map, generator, None)
    if data is None:
        return scores
    samples = calibration_samples(channel_map.graph, data, SAMPLES)
    narrow = [group for group in groups if group.size**3 * _readers(group) <= WIDE]
    errors = reconstruction(channel_map, generator, samples, narrow)
    for group in narrow:
        scores[group.channels] = errors[group.channels]
    return scores


def _readers(group: ChannelGroup) -> int:
    return sum(not member.produces for member in group.members)
