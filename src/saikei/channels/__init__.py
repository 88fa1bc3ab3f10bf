"""From labels to channel groups: which channels of which layers can only be cut together.

Labels are propagated once through the graph; rules declare which labels are equal and which are
pinned. Equal labels are one *channel*. Layers whose channels are tied form one *group*.
"""

from __future__ import annotations

import keras

from saikei.channels.channel_map import BoolMask, ChannelMap
from saikei.channels.groups import ChannelGroup, ChannelGroups, Member
from saikei.channels.propagation import map_channels
from saikei.channels.uncut import uncut_layers
from saikei.graph import read

__all__ = [
    "BoolMask",
    "ChannelGroup",
    "ChannelGroups",
    "ChannelMap",
    "Member",
    "channel_groups",
    "map_channels",
    "uncut_layers",
]


def channel_groups(model: keras.Model) -> ChannelGroups:
    """Which channels of which layers can only be cut together.

    Args:
        model: A built Functional or Sequential model.

    Returns:
        One `ChannelGroup` for each set of layers that share channels; `str()` of it is a table.

    Raises:
        ModelError: When the model cannot be read.
    """
    return ChannelGroups(map_channels(read(model)).groups)
