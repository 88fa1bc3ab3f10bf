"""`Plan`: how long and how fast to train."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

import keras

from saikei.errors import InputError
from saikei.training.optimizer import adam
from saikei.training.schedule import warm_cosine


def is_number(value: Any) -> bool:
    """Whether a value is a finite number."""
    return not isinstance(value, bool) and isinstance(value, Real) and math.isfinite(value)


def _is_whole(value: Any) -> bool:
    return not isinstance(value, bool) and isinstance(value, Integral)


@dataclass(frozen=True)
class Plan:
    """How long and how fast to train.

    Args:
        epochs: passes over the data.
        batch_size: samples a step, for arrays.
        learning_rate: the peak of the schedule.
        patience: epochs without a better validation loss before stopping; `None` never stops.
        seed: of the order of the samples and of random layers.
        progress: whether to show a bar.
        callbacks: more Keras callbacks.
        settled: epochs that cannot be the best one, because the model is not yet what it is to
            become; `None` where the state before training may be the best one too.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    patience: int | None
    seed: int
    progress: bool
    callbacks: Sequence[keras.callbacks.Callback]
    settled: int | None = None

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise InputError(f"{name}={value!r}: give a whole number of at least 1.")
        if not (is_number(self.learning_rate) and self.learning_rate > 0):
            raise InputError(f"learning_rate={self.learning_rate!r}: give a positive number.")
        if self.patience is not None and not (_is_whole(self.patience) and self.patience >= 1):
            raise InputError(f"patience={self.patience!r}: give at least 1 epoch, or None.")
        if not _is_whole(self.seed) or self.seed < 0:
            raise InputError(f"seed={self.seed!r}: give a whole number of at least 0.")
        callbacks = self.callbacks if isinstance(self.callbacks, (list, tuple)) else [None]
        if not all(isinstance(one, keras.callbacks.Callback) for one in callbacks):
            raise InputError(f"callbacks={self.callbacks!r:.40}: give a list of Keras callbacks.")

    def optimizer(self, model: keras.Model, steps: int | None) -> keras.optimizers.Optimizer:
        """Adam for a model over the plan's schedule, for so many steps an epoch."""
        if steps is None:
            return adam(model, self.learning_rate)
        return adam(model, warm_cosine(self.learning_rate, steps * self.epochs))
