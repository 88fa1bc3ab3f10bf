"""Magnitude: the L2 norm of the weights that make a channel.

Li et al., "Pruning Filters for Efficient ConvNets", 2017 (there with the L1 norm of one layer;
here over all layers whose channels are tied).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from saikei.channels import ChannelMap

# They shift or standardise a channel; its strength is in the weights that multiply.
_OFFSETS = frozenset({"bias", "beta", "moving_mean", "moving_variance"})


def magnitude(channel_map: ChannelMap, generator: np.random.Generator) -> NDArray[np.float64]:
    """Norm of each channel's producing weights, relative to its group's mean.

    A channel whose producing weights are all zero scores 0, the least there is. Dividing by
    the group's mean makes scores of groups of different fan-in comparable.

    Args:
        channel_map: a graph with its channels.
        generator: not used; criteria share one signature.
    """
    squares = np.zeros(channel_map.count)
    seen: set[int] = set()
    for operation in channel_map.graph.operations.values():
        for name, weight in operation.weights.items():
            if weight.key in seen or name in _OFFSETS:
                continue
            seen.add(weight.key)
            for axis, vector in enumerate(channel_map.weights.get(weight.key, ())):
                if vector is None or (weight.key, axis) not in channel_map.produced:
                    continue
                array = weight.numpy().astype(np.float64)
                others = tuple(a for a in range(array.ndim) if a != axis)
                norms = np.square(array).sum(axis=others)
                squares += np.bincount(
                    channel_map.channel_of[vector], norms, minlength=channel_map.count
                )
    return _relative_to_group(channel_map, np.sqrt(squares))


def _relative_to_group(channel_map: ChannelMap, scores: NDArray[np.float64]) -> NDArray[np.float64]:
    relative = scores.copy()
    for group in channel_map.groups:
        mean = scores[group.channels].mean()
        if mean > 0:
            relative[group.channels] = scores[group.channels] / mean
    return relative
