"""`Plan`: how long and how fast to train, with the optimizer and its learning rate schedule."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras

from saikei.errors import InputError
from saikei.graph.internals import flattened_layers
from saikei.limits import EPOCHS, check_seed, check_whole, is_number

WARM_UP_SHARE = 0.05
# In float16 the square of a small gradient is 0, and a division by Keras's 1e-7 overflows.
_EPSILON_IN_HALF = 1e-3
# Gradients below 6e-8 are 0 in float16; losses are scaled by as much as does not overflow.
_FIRST_SCALE = 2.0**10


def verbosity(progress: bool, verbose: Any) -> int:
    """What a training shows, as `keras.Model.fit` counts it.

    Args:
        progress: whether to show a progress bar where `verbose` is `None`.
        verbose: 0, 1, 2 or `"auto"`, which is 1; or `None`.

    Raises:
        InputError: when `verbose` is something else.
    """
    if verbose is None:
        return int(progress)
    if verbose not in (0, 1, 2, "auto"):
        raise InputError(f"verbose={verbose!r}: give 0, 1, 2 or 'auto', as in keras.Model.fit.")
    return 1 if verbose == "auto" else int(verbose)


@dataclass(frozen=True)
class Plan:
    """How long and how fast to train.

    Args:
        epochs: passes over the data.
        batch_size: samples a step, for arrays.
        learning_rate: the peak of the schedule.
        patience: epochs without a better validation loss before stopping; `None` never stops.
        seed: the seed of the order of the samples and of random layers.
        verbose: as in `keras.Model.fit`: 0 shows nothing, 1 a progress bar, 2 a line an epoch.
        callbacks: more Keras callbacks.
        settled: epochs that cannot be the best one, because the model is not yet what it is to
            become; `None` where the state before training may be the best one too.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    patience: int | None
    seed: int
    verbose: int
    callbacks: Sequence[keras.callbacks.Callback]
    settled: int | None = None

    def __post_init__(self) -> None:
        check_whole("epochs", self.epochs, 1, EPOCHS, InputError)
        check_whole("batch_size", self.batch_size, kind=InputError)
        check_seed(self.seed, InputError)
        if not (is_number(self.learning_rate) and self.learning_rate > 0):
            raise InputError(f"learning_rate={self.learning_rate!r}: give a positive number.")
        if self.patience is not None:
            check_whole("patience", self.patience, 1, EPOCHS, InputError)
        callbacks = self.callbacks if isinstance(self.callbacks, (list, tuple)) else [None]
        if not all(isinstance(one, keras.callbacks.Callback) for one in callbacks):
            raise InputError(f"callbacks={self.callbacks!r:.40}: give a list of Keras callbacks.")

    def optimizer(self, model: keras.Model, steps: int | None) -> keras.optimizers.Optimizer:
        """Adam for a model over the plan's schedule, for so many steps an epoch."""
        if steps is None:
            return adam(model, self.learning_rate)
        return adam(model, warm_cosine(self.learning_rate, steps * self.epochs))


def adam(model: keras.Model, learning_rate: Any) -> keras.optimizers.Optimizer:
    """Adam for a model, with its loss scaled where a layer computes in float16.

    Keras scales it by itself only where all of a model has the policy `"mixed_float16"`.

    Args:
        model: the model that is trained.
        learning_rate: a number or a schedule.
    """
    # Keras takes no whole number for a rate.
    learning_rate = float(learning_rate) if is_number(learning_rate) else learning_rate
    stored = {str(variable.dtype) for variable in model.trainable_variables}
    computed = {layer.compute_dtype for layer in flattened_layers(model)}
    if "float16" not in stored | computed:
        return keras.optimizers.Adam(learning_rate)
    epsilon = _EPSILON_IN_HALF if "float16" in stored else keras.config.epsilon()
    return keras.optimizers.LossScaleOptimizer(
        keras.optimizers.Adam(learning_rate, epsilon=epsilon), initial_scale=_FIRST_SCALE
    )


def warm_cosine(
    learning_rate: float, total_steps: int
) -> keras.optimizers.schedules.LearningRateSchedule:
    """Warm up over the first 5 % of the steps, then decay to zero.

    Args:
        learning_rate: the peak of the schedule.
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
    """A cosine without warm-up, a step down each epoch, for data of unknown length."""

    def at(epoch: int, _: float) -> float:
        return learning_rate * (1 + math.cos(math.pi * epoch / epochs)) / 2

    return keras.callbacks.LearningRateScheduler(at)
