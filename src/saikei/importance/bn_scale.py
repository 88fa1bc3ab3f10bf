"""BatchNorm scale: |γ|, which an L1 penalty in training drives to 0 where it is not needed.

Liu et al., "Learning Efficient Convolutional Networks through Network Slimming", 2017.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from saikei.calibration.samples import Samples
from saikei.channels import ChannelMap
from saikei.errors import EditError
from saikei.importance.magnitude import magnitude
from saikei.importance.per_channel import relative_to_group, summed, weight_axes


def bn_scale(
    channel_map: ChannelMap, generator: np.random.Generator, samples: Samples | None = None
) -> NDArray[np.float64]:
    """Sum of |γ| over the BatchNormalization layers of a channel, relative to its group's mean.

    Channels that pass no such layer score by the norm of their weights.

    Args:
        channel_map: a graph with its channels.
        generator: not used.
        samples: not used.

    Raises:
        EditError: when no BatchNormalization of the model has a scale.
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
