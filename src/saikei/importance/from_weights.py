"""Criteria that look at the weights alone: norms, distances, scales, and random scores.

- Magnitude: Li et al., "Pruning Filters for Efficient ConvNets", 2017 (there with the L1 norm of
  one layer; here over all layers whose channels are tied).
- Geometric median: He et al., "Filter Pruning via Geometric Median for Deep Convolutional Neural
  Networks Acceleration" (FPGM), 2019.
- BatchNorm scale: Liu et al., "Learning Efficient Convolutional Networks through Network
  Slimming", 2017.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from saikei.calibration.samples import Samples
from saikei.channels import ChannelMap
from saikei.errors import EditError
from saikei.importance.per_channel import along, relative_to_group, summed, weight_axes
from saikei.importance.readers import in_channels


def magnitude(
    channel_map: ChannelMap, generator: np.random.Generator, samples: Samples | None = None
) -> NDArray[np.float64]:
    """L2 norm of each channel's producing weights, relative to its group's mean.

    A channel whose producing weights are all zero scores 0, the least there is. Dividing by
    the group's mean makes scores of groups of different fan-in comparable.
    """
    squares = np.zeros(channel_map.count)
    for _, _, weight, axis, channels in weight_axes(channel_map, produced=True):
        flat = along(weight.numpy(), axis)
        squares += summed(channel_map, channels, np.einsum("ij,ij->j", flat, flat))
    return relative_to_group(channel_map, np.sqrt(squares))


def l1(
    channel_map: ChannelMap, generator: np.random.Generator, samples: Samples | None = None
) -> NDArray[np.float64]:
    """L1 norm of each channel's producing weights, relative to its group's mean."""
    sums = np.zeros(channel_map.count)
    for _, _, weight, axis, channels in weight_axes(channel_map, produced=True):
        sums += summed(channel_map, channels, np.abs(along(weight.numpy(), axis)).sum(axis=0))
    return relative_to_group(channel_map, sums)


def geometric_median(
    channel_map: ChannelMap, generator: np.random.Generator, samples: Samples | None = None
) -> NDArray[np.float64]:
    """Sum of the distances of a channel's producing weights to those of its group's others.

    A channel whose weights are in the middle of the others' can be replaced by them.
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


def bn_scale(
    channel_map: ChannelMap, generator: np.random.Generator, samples: Samples | None = None
) -> NDArray[np.float64]:
    """Sum of |γ| over the BatchNormalization layers of a channel, relative to its group's mean.

    An L1 penalty in training drives γ to 0 where it is not needed. Channels that pass no such layer
    score by the norm of their weights.

    Raises:
        EditError: When no BatchNormalization of the model has a scale.
    """
    scales, seen = np.zeros(channel_map.count), np.zeros(channel_map.count, dtype=bool)
    for operation, name, weight, _, channels in weight_axes(channel_map, produced=True):
        kind = channel_map.graph.operations[operation].kind
        if name == "gamma" and kind == "BatchNormalization":
            scales += summed(channel_map, channels, np.abs(weight.numpy().astype(np.float64)))
            seen[channels] = True
    if not seen.any():
        raise EditError(
            "Importance 'bn_scale' needs BatchNormalization layers with a scale, and the model has "
            "none: use importance='magnitude'."
        )
    scores = relative_to_group(channel_map, scales)
    rest = [g.channels for g in channel_map.groups if not seen[g.channels].any()]
    if rest:
        others = np.concatenate(rest)
        scores[others] = magnitude(channel_map, generator)[others]
    return scores


def random_scores(
    channel_map: ChannelMap, generator: np.random.Generator, samples: Samples | None = None
) -> NDArray[np.float64]:
    """One uniform number in (0, 1] for each channel."""
    return 1.0 - generator.random(channel_map.count)
