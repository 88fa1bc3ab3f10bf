"""Magnitude: the norm of the weights that make a channel.

Li et al., "Pruning Filters for Efficient ConvNets", 2017 (there with the L1 norm of one layer;
here over all layers whose channels are tied).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from saikei.calibration.samples import Samples
from saikei.channels import ChannelMap
from saikei.importance.per_channel import along, relative_to_group, summed, weight_axes


def magnitude(
    channel_map: ChannelMap, generator: np.random.Generator, samples: Samples | None = None
) -> NDArray[np.float64]:
    """L2 norm of each channel's producing weights, relative to its group's mean.

    A channel whose producing weights are all zero scores 0, the least there is. Dividing by
    the group's mean makes scores of groups of different fan-in comparable.

    Args:
        channel_map: a graph with its channels.
        generator: not used; criteria share one signature.
        samples: not used.
    """
    squares = np.zeros(channel_map.count)
    for _, _, weight, axis, channels in weight_axes(channel_map, produced=True):
        flat = along(weight.numpy(), axis)
        squares += summed(channel_map, channels, np.einsum("ij,ij->j", flat, flat))
    return relative_to_group(channel_map, np.sqrt(squares))


def l1(
    channel_map: ChannelMap, generator: np.random.Generator, samples: Samples | None = None
) -> NDArray[np.float64]:
    """L1 norm of each channel's producing weights, relative to its group's mean.

    Args:
        channel_map: a graph with its channels.
        generator: not used.
        samples: not used.
    """
    sums = np.zeros(channel_map.count)
    for _, _, weight, axis, channels in weight_axes(channel_map, produced=True):
        sums += summed(channel_map, channels, np.abs(along(weight.numpy(), axis)).sum(axis=0))
    return relative_to_group(channel_map, sums)
