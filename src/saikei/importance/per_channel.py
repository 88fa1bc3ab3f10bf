"""Numbers of weights as numbers of channels, and channels of groups compared."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from saikei.channels import ChannelMap
from saikei.graph import Weight
from saikei.graph.flat import SPECTRAL_WEIGHT

# They shift or standardise a channel; its strength is in the weights that multiply.
OFFSETS = frozenset({"bias", "beta", "moving_mean", "moving_variance", SPECTRAL_WEIGHT})

Numbers = NDArray[np.floating]


def weight_axes(
    channel_map: ChannelMap, produced: bool
) -> Iterator[tuple[str, str, Weight, int, NDArray[np.int64]]]:
    """Axes of multiplying weights that carry channels; tied variables once.

    Args:
        channel_map: A graph with its channels.
        produced: Whether those that make channels, or those that read them.

    Yields:
        The operation's and the weight's name, the weight, the axis, and for each index of the
        axis its channel's number.
    """
    seen: set[int] = set()
    for operation in channel_map.graph.operations.values():
        for name, weight in operation.weights.items():
            if weight.key in seen or name in OFFSETS:
                continue
            seen.add(weight.key)
            for axis, vector in enumerate(channel_map.weights.get(weight.key, ())):
                made = (weight.key, axis) in channel_map.produced
                if vector is not None and made == produced:
                    yield operation.name, name, weight, axis, channel_map.channel_of[vector]


def along(array: Numbers, axis: int) -> Numbers:
    """An array as `(others, size of the axis)`, in at least single precision."""
    moved = array if axis == array.ndim - 1 else np.moveaxis(array, axis, -1)
    flat = moved.reshape(-1, array.shape[axis])
    return flat if flat.dtype in (np.float32, np.float64) else flat.astype(np.float32)


def summed(
    channel_map: ChannelMap, channels: NDArray[np.int64], values: Numbers
) -> NDArray[np.float64]:
    """Values of an axis, added up for each of all channels of the graph."""
    return np.bincount(channels, values, minlength=channel_map.count).astype(np.float64, copy=False)


def relative_to_group(channel_map: ChannelMap, scores: Numbers) -> NDArray[np.float64]:
    """Scores divided by their group's mean, so that groups of different scale can be compared."""
    relative = np.asarray(scores, dtype=np.float64).copy()
    for group in channel_map.groups:
        mean = relative[group.channels].mean()
        if mean > 0:
            relative[group.channels] /= mean
    return relative
