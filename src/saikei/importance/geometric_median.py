"""Geometric median: channels whose weights lie amid those of the others can be replaced by them.

He et al., "Filter Pruning via Geometric Median for Deep Convolutional Neural Networks
Acceleration" (FPGM), 2019.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from saikei.calibration.samples import Samples
from saikei.channels import ChannelMap
from saikei.importance.per_channel import along, relative_to_group, weight_axes
from saikei.importance.readers import in_channels


def geometric_median(
    channel_map: ChannelMap, generator: np.random.Generator, samples: Samples | None = None
) -> NDArray[np.float64]:
    """Sum of the distances of a channel's producing weights to those of its group's others.

    Args:
        channel_map: a graph with its channels.
        generator: not used.
        samples: not used.
    """
    scores = np.zeros(channel_map.count)
    axes = list(weight_axes(channel_map, produced=True))
    for group in channel_map.groups:
        products = np.zeros((group.size, group.size))
        for _, _, weight, axis, channels in axes:
            if np.isin(channels, group.channels).any():
                flat = along(weight.numpy(), axis)
                rows = in_channels(flat, 1, channels, group).astype(np.float64)
                products += rows.T @ rows
        squares = np.diag(products)
        distances = squares[:, None] + squares[None, :] - 2 * products
        scores[group.channels] = np.sqrt(np.maximum(distances, 0)).sum(axis=1)
    return relative_to_group(channel_map, scores)
