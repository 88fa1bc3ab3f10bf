"""Random importance: the yardstick that every other criterion has to beat."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from saikei.calibration.samples import Samples
from saikei.channels import ChannelMap


def random_scores(
    channel_map: ChannelMap, generator: np.random.Generator, samples: Samples | None = None
) -> NDArray[np.float64]:
    """One uniform number in (0, 1] for each channel.

    Args:
        channel_map: a graph with its channels.
        generator: where the numbers come from.
        samples: not used.
    """
    return 1.0 - generator.random(channel_map.count)
