"""The learning rate over a training: a short linear warm-up, then a cosine down to zero."""

from __future__ import annotations

import math

import keras

WARM_UP_SHARE = 0.05


def warm_cosine(
    learning_rate: float, total_steps: int
) -> keras.optimizers.schedules.LearningRateSchedule:
    """Warm up over the first 5 % of the steps, then decay to zero.

    Args:
        learning_rate: the peak.
        total_steps: batches of all epochs.
    """
    warm_up = max(1, round(WARM_UP_SHARE * total_steps))
    return keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=learning_rate / warm_up,
        decay_steps=max(1, total_steps - warm_up),
        warmup_target=learning_rate,
        warmup_steps=warm_up,
    )


def cosine_by_epoch(learning_rate: float, epochs: int) -> keras.callbacks.Callback:
    """The same without the warm-up, a step down each epoch, for data of unknown length."""

    def at(epoch: int, _: float) -> float:
        return learning_rate * (1 + math.cos(math.pi * epoch / epochs)) / 2

    return keras.callbacks.LearningRateScheduler(at)
