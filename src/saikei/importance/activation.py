"""Activation: how strong, or how often not zero, a channel is on data, where it is read."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from saikei.calibration.samples import Samples
from saikei.channels import ChannelMap
from saikei.importance.per_channel import relative_to_group
from saikei.importance.readers import read_arrays


def activation(
    channel_map: ChannelMap, generator: np.random.Generator, samples: Samples | None = None
) -> NDArray[np.float64]:
    """Mean |a| of each channel over the tensors in which it is read, relative to its group's."""
    return relative_to_group(channel_map, _mean(channel_map, samples, np.abs))


def apoz(
    channel_map: ChannelMap, generator: np.random.Generator, samples: Samples | None = None
) -> NDArray[np.float64]:
    """Share of positions where a channel is not zero: one minus the average percentage of zeros.

    Hu et al., "Network Trimming", 2016.
    """
    return relative_to_group(channel_map, _mean(channel_map, samples, lambda array: array != 0))


def _mean(
    channel_map: ChannelMap,
    samples: Samples | None,
    of: Callable[[NDArray[np.float64]], NDArray[np.floating | np.bool_]],
) -> NDArray[np.float64]:
    assert samples is not None
    sums, counts = np.zeros(channel_map.count), np.zeros(channel_map.count)
    for reading in read_arrays(channel_map, samples):
        carrier = reading.axes[0]
        means = np.zeros(len(carrier.channels))
        for share, array in reading.parts:
            values = np.moveaxis(array, carrier.axis, -1).reshape(-1, array.shape[carrier.axis])
            means += share * of(values.astype(np.float64)).mean(axis=0)
        np.add.at(sums, carrier.channels, len(reading.axes) * means)
        np.add.at(counts, carrier.channels, float(len(reading.axes)))
    return np.asarray(sums / np.maximum(counts, 1.0))
