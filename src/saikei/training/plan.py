"""`Plan`: how long and how fast to train, and the optimizer for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras

from saikei.errors import InputError
from saikei.graph.internals import flattened_layers
from saikei.limits import EPOCHS, check_seed, check_whole, is_number
from saikei.training.parts import Optimizer, TrainingSettings
from saikei.training.schedules import StableRate, cosine_by_epoch, stable_by_epoch, warm_cosine

# In float16 the square of a small gradient is 0, and a division by Keras's 1e-7 overflows.
_EPSILON_IN_HALF = 1e-3
# Gradients below 6e-8 are 0 in float16; losses are scaled by as much as does not overflow.
_FIRST_SCALE = 2.0**10
_MOMENTUM = 0.9


def verbosity(progress: bool, verbose: Any) -> int:
    """What a training shows, as `keras.Model.fit` counts it.

    Args:
        progress: Whether to show a progress bar where `verbose` is `None`.
        verbose: 0, 1, 2 or `"auto"`, which is 1; or `None`.

    Raises:
        InputError: When `verbose` is something else.
    """
    if verbose is None:
        return int(progress)
    if verbose not in (0, 1, 2, "auto"):
        raise InputError(f"verbose={verbose!r}: give 0, 1, 2 or 'auto', as in keras.Model.fit.")
    return 1 if verbose == "auto" else int(verbose)


@dataclass(frozen=True)
class Part:
    """Which part of a longer training is done, and with which settings.

    Args:
        begin: The number of epochs that are trained already.
        began: The epoch that the optimizer began with.
        total: The number of epochs that the schedule is for.
        settings: How the network is trained.
    """

    begin: int
    began: int
    total: int
    settings: TrainingSettings


@dataclass(frozen=True)
class Plan:
    """How long and how fast to train.

    Args:
        epochs: Passes over the data.
        batch_size: Samples a step, for arrays.
        learning_rate: The peak of the schedule.
        patience: Epochs without a better validation loss before stopping; `None` never stops.
        seed: The seed of the order of the samples and of random layers.
        verbose: As in `keras.Model.fit`: 0 shows nothing, 1 a progress bar, 2 a line an epoch.
        callbacks: More Keras callbacks.
        settled: Epochs that cannot be the best one, because the model is not yet what it is to
            become; `None` where the state before training may be the best one too.
        part: Which part of a longer training this is, up to the epoch `epochs`; `None` for a whole
            training.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    patience: int | None
    seed: int
    verbose: int
    callbacks: Sequence[keras.callbacks.Callback]
    settled: int | None = None
    part: Part | None = None

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
        """The optimizer for a model over the plan's schedule, for so many steps an epoch."""
        rate: Any = self.learning_rate
        part = self.part
        if part is None:
            return adam(model, rate if steps is None else warm_cosine(rate, steps * self.epochs))
        if steps is not None:
            rate = StableRate(rate, steps, part.began, part.total, part.settings.decay)
        return optimizer_for(model, rate, part.settings.optimizer, part.settings.weight_decay)

    def rate_by_epoch(self) -> keras.callbacks.Callback:
        """A callback that sets the rate of each epoch, for data of unknown length."""
        if self.part is None:
            return cosine_by_epoch(self.learning_rate, self.epochs)
        return stable_by_epoch(self.learning_rate, self.part.total, self.part.settings.decay)


def adam(model: keras.Model, learning_rate: Any) -> keras.optimizers.Optimizer:
    """Adam for a model; see `optimizer_for`."""
    return optimizer_for(model, learning_rate, "adam")


def optimizer_for(
    model: keras.Model, learning_rate: Any, kind: Optimizer, weight_decay: float = 0.0
) -> keras.optimizers.Optimizer:
    """An optimizer for a model, with its loss scaled where a layer computes in float16.

    Keras scales it by itself only where all of a model has the policy `"mixed_float16"`.

    Args:
        model: The model that is trained.
        learning_rate: A number or a schedule.
        kind: The name of the optimizer, as in `TrainingSettings`.
        weight_decay: The decay of kernels per step, times the learning rate.
    """
    # Keras takes no whole number for a rate.
    learning_rate = float(learning_rate) if is_number(learning_rate) else learning_rate
    stored = {str(variable.dtype) for variable in model.trainable_variables}
    computed = {layer.compute_dtype for layer in flattened_layers(model)}
    arguments: dict[str, Any] = {"weight_decay": weight_decay} if weight_decay else {}
    if kind != "sgd" and "float16" in stored:
        arguments["epsilon"] = _EPSILON_IN_HALF
    if kind == "sgd":
        optimizer = keras.optimizers.SGD(learning_rate, momentum=_MOMENTUM, **arguments)
    elif kind == "adamw":
        optimizer = keras.optimizers.AdamW(learning_rate, **{"weight_decay": 0.0, **arguments})
    else:
        optimizer = keras.optimizers.Adam(learning_rate, **arguments)
    if weight_decay:
        vectors = [one for one in model.trainable_variables if len(one.shape) < 2]
        optimizer.exclude_from_weight_decay(var_list=vectors)
    if "float16" not in stored | computed:
        return optimizer
    return keras.optimizers.LossScaleOptimizer(optimizer, initial_scale=_FIRST_SCALE)
