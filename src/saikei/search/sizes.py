"""Seeds and sizes that follow from the arguments of a run."""

from __future__ import annotations

import numpy as np

SMALLEST_BATCH = 16
LARGEST_BATCH = 128
# With fewer steps an epoch, a small data set is undertrained after the default epochs.
STEPS = 60


def batch_size_for(samples: int) -> int:
    """The largest power of two from 16 to 128 that still gives 60 steps an epoch.

    Args:
        samples: Number of samples in the training data.

    Example:
        >>> [batch_size_for(n) for n in (500, 1_077, 2_000, 50_000)]
        [16, 16, 32, 128]
    """
    size = LARGEST_BATCH
    while size > SMALLEST_BATCH and samples < STEPS * size:
        size //= 2
    return size


def derived_seed(seed: int, *path: int) -> int:
    """A seed for one use, derived from the run's seed and independent of other draws."""
    return int(np.random.SeedSequence([seed, *path]).generate_state(1)[0] >> 1)
