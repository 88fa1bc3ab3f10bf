"""Cut channels, and refit the layers that are left."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from saikei.calibration.refit import refit
from saikei.calibration.surviving_outputs import kept_outputs
from saikei.channels import BoolMask, ChannelMap
from saikei.edits.constants import fold_constants
from saikei.edits.cut import check_keep, cut
from saikei.graph import Graph


def cut_and_compensate(
    channel_map: ChannelMap, keep: BoolMask, data: Any, compensate: bool
) -> Graph:
    """The graph with only the kept channels; the layers that are left may make up for the others.

    Args:
        channel_map: A graph with its channels.
        keep: For each channel, whether it stays.
        data: What `keras.Model.fit` takes, or `None`.
        compensate: Whether to refit to the data, or, without any, to fold what is constant.

    Raises:
        EditError: When a pinned channel would go, or a layer would be left without any.
        DataError: When the data does not fit the model.
    """
    if not compensate:
        return cut(channel_map, keep)
    if data is None:
        return cut_and_fold(channel_map, keep)
    return cut_and_refit(channel_map, keep, data)


def cut_and_refit(channel_map: ChannelMap, keep: BoolMask, data: Any) -> Graph:
    """The graph with only the kept channels, its layers refitted to what they gave before.

    Args:
        channel_map: A graph with its channels.
        keep: For each channel, whether it stays.
        data: What `keras.Model.fit` takes.

    Raises:
        EditError: When a pinned channel would go, or a layer would be left without any.
        DataError: When the data does not fit the model.
    """
    smaller = cut_and_fold(channel_map, keep)
    return refit(channel_map.graph, smaller, data, kept=kept_outputs(channel_map, keep))


def cut_and_fold(channel_map: ChannelMap, keep: BoolMask) -> Graph:
    """The graph with only the kept channels; constant ones that go are added to biases.

    Args:
        channel_map: A graph with its channels.
        keep: For each channel, whether it stays.

    Raises:
        EditError: When a pinned channel would go, or a layer would be left without any.
    """
    check_keep(channel_map, keep)
    return cut(replace(channel_map, graph=fold_constants(channel_map, keep)), keep)
