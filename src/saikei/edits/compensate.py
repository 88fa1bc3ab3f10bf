"""Cut channels, and let what is left make up for them."""

from __future__ import annotations

from typing import Any

from saikei.calibration.kept import kept_outputs
from saikei.calibration.refit import refit
from saikei.channels import BoolMask, ChannelMap
from saikei.edits.cut import cut
from saikei.graph import Graph


def cut_and_refit(channel_map: ChannelMap, keep: BoolMask, data: Any) -> Graph:
    """The graph with only the kept channels, its layers refitted to what they gave before.

    Args:
        channel_map: a graph with its channels.
        keep: for each channel, whether it stays.
        data: what `keras.Model.fit` takes.

    Raises:
        EditError: when a pinned channel would go, or a layer would be left without any.
        DataError: when the data does not fit the model.
    """
    smaller = cut(channel_map, keep)
    return refit(channel_map.graph, smaller, data, kept=kept_outputs(channel_map, keep))
