"""How the learning rate changes while a network is trained."""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import ops

WARM_UP_SHARE = 0.05
# Of one epoch, so that the beginning of a training does not depend on its length.
WARM_UP_EPOCHS = 0.5


def warm_cosine(
    learning_rate: float, total_steps: int
) -> keras.optimizers.schedules.LearningRateSchedule:
    """Warm up over the first 5 % of the steps, then decay to zero.

    Args:
        learning_rate: The peak of the schedule.
        total_steps: The number of batches of all epochs.
    """
    warm_up = max(1, round(WARM_UP_SHARE * total_steps))
    return keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=learning_rate / warm_up,
        decay_steps=max(1, total_steps - warm_up),
        warmup_target=learning_rate,
        warmup_steps=warm_up,
    )


def cosine_by_epoch(learning_rate: float, epochs: int) -> keras.callbacks.Callback:
    """A cosine without warm-up, a step down each epoch, for data of unknown length."""

    def at(epoch: int, _: float) -> float:
        return learning_rate * (1 + math.cos(math.pi * epoch / epochs)) / 2

    return keras.callbacks.LearningRateScheduler(at)


class StableRate(keras.optimizers.schedules.LearningRateSchedule):
    """A rate that rises over half an epoch, is constant, and falls over the last epochs.

    It falls as `1 - √x`, x being the share of the last epochs that has passed (Hägele et al.,
    "Scaling Laws and Compute-Optimal Training Beyond Fixed Training Durations", 2024).

    Args:
        learning_rate: The constant rate.
        steps: The number of batches of an epoch.
        began: The epoch that the optimizer begins with.
        total: The number of all epochs.
        decay: The share of all epochs in which the rate falls.
    """

    def __init__(
        self, learning_rate: float, steps: int, began: int, total: int, decay: float
    ) -> None:
        self._rate, self._steps = learning_rate, steps
        self._began, self._total, self._decay = began, total, decay

    def __call__(self, step: Any) -> Any:
        """The rate of a step of the optimizer, a scalar tensor."""
        done = ops.cast(step, "float32")
        warm = ops.minimum(1.0, (done + 1) / max(1.0, WARM_UP_EPOCHS * self._steps))
        last = self._decay * self._total * self._steps
        first = (self._total - self._began) * self._steps - last
        passed = ops.clip((done - first) / max(1.0, last), 0.0, 1.0)
        return self._rate * warm * (1 - ops.sqrt(passed))

    def get_config(self) -> dict[str, Any]:
        """The arguments, as Keras asks for them."""
        return {
            "learning_rate": self._rate,
            "steps": self._steps,
            "began": self._began,
            "total": self._total,
            "decay": self._decay,
        }


def stable_by_epoch(learning_rate: float, total: int, decay: float) -> keras.callbacks.Callback:
    """The same without the rise, a step down each epoch, for data of unknown length."""

    def at(epoch: int, _: float) -> float:
        last = decay * total
        # In the middle of the epoch, so that the last one has a rate as well.
        passed = max(0.0, (epoch + 0.5 - (total - last)) / max(1.0, last))
        return learning_rate * (1 - math.sqrt(passed))

    return keras.callbacks.LearningRateScheduler(at)
