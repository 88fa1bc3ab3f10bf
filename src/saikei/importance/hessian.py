"""Hessian: what the loss would do to second order if a channel went.

LeCun et al., "Optimal Brain Damage", 1990; Theis et al., "Faster gaze prediction with dense
networks and Fisher pruning", 2018.
"""

from __future__ import annotations

import numpy as np

from saikei.calibration.samples import Samples
from saikei.channels import ChannelMap
from saikei.importance.per_channel import relative_to_group
from saikei.importance.sensitivity import Numbers, batches


def hessian(
    channel_map: ChannelMap, generator: np.random.Generator, samples: Samples | None = None
) -> Numbers:
    """Second order: ½ Σ w² E[(∂L/∂w)²], the diagonal of the empirical Fisher matrix.

    Relative to the group's mean.

    Args:
        channel_map: a graph with its channels.
        generator: not used.
        samples: with labels.
    """
    assert samples is not None
    total = np.zeros(channel_map.count)
    for batch in batches(channel_map, samples):
        for channels, weights, gradients in batch:
            product = weights * gradients
            np.add.at(total, channels, 0.5 * np.einsum("ij,ij->j", product, product))
    return relative_to_group(channel_map, total)
