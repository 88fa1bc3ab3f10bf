"""How hard every training of a run works."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from saikei.errors import InputError

SMALLEST_BATCH = 16
LARGEST_BATCH = 128
# Fewer steps an epoch leave a small data set undertrained after the default epochs.
STEPS = 60


@dataclass(frozen=True)
class Effort:
    """What all trainings of a run share.

    Args:
        epochs: of each.
        batch_size: of each; `None` where a dataset brings its own.
        seed: of the run.

    Raises:
        InputError: when one of them is out of range.
    """

    epochs: int
    batch_size: int | None
    seed: int

    def __post_init__(self) -> None:
        at_least("epochs", self.epochs, 1)
        at_least("seed", self.seed, 0)
        if self.batch_size is not None:
            at_least("batch_size", self.batch_size, 1)


def at_least(name: str, value: Any, least: int) -> int:
    """The value, if it is a whole number in range.

    Raises:
        InputError: when it is not.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise InputError(f"{name}={value!r}: give a whole number of at least {least}.")
    return value


def batch_size_for(samples: int) -> int:
    """The largest power of two from 16 to 128 that still gives 60 steps an epoch.

    Args:
        samples: in the training data.

    Example:
        >>> [batch_size_for(n) for n in (500, 1_077, 2_000, 50_000)]
        [16, 16, 32, 128]
    """
    size = LARGEST_BATCH
    while size > SMALLEST_BATCH and samples < STEPS * size:
        size //= 2
    return size
