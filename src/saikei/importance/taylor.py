"""Taylor: what the loss would do to first order if a channel went.

Molchanov et al., "Importance Estimation for Neural Network Pruning", 2019.
"""

from __future__ import annotations

import numpy as np

from saikei.calibration.samples import Samples
from saikei.channels import ChannelMap
from saikei.importance.per_channel import relative_to_group
from saikei.importance.sensitivity import Numbers, batches


def taylor(
    channel_map: ChannelMap, generator: np.random.Generator, samples: Samples | None = None
) -> Numbers:
    """First order: the mean over small batches of |∂L/∂z|, relative to the group's mean.

    Args:
        channel_map: a graph with its channels.
        generator: not used.
        samples: with labels.
    """
    assert samples is not None
    total = np.zeros(channel_map.count)
    for batch in batches(channel_map, samples):
        gate = np.zeros(channel_map.count)
        for channels, weights, gradients in batch:
            np.add.at(gate, channels, np.einsum("ij,ij->j", weights, gradients))
        total += np.abs(gate)
    return relative_to_group(channel_map, total)
