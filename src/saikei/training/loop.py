"""The loop that `fit` and `distill` share: schedule, validation, best weights, progress."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from saikei.errors import InputError, WorkError
from saikei.training.batches import ArrayData
from saikei.training.progress import ProgressBar
from saikei.training.schedule import cosine_by_epoch, warm_cosine

VALIDATION_BATCH_SIZE = 1024


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
            become.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    patience: int | None
    seed: int
    progress: bool
    callbacks: Sequence[keras.callbacks.Callback]
    settled: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise InputError(f"{name}={value!r}: give a whole number of at least 1.")
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise InputError(f"learning_rate={self.learning_rate!r}: give a positive number.")
        if self.patience is not None and self.patience < 1:
            raise InputError(f"patience={self.patience!r}: give at least 1 epoch, or None.")
        if self.seed < 0:
            raise InputError(f"seed={self.seed!r}: give a whole number of at least 0.")

    def optimizer(self, steps: int | None) -> keras.optimizers.Optimizer:
        """Adam over the plan's schedule, for so many steps an epoch."""
        if steps is None:
            return keras.optimizers.Adam(self.learning_rate)
        return keras.optimizers.Adam(warm_cosine(self.learning_rate, steps * self.epochs))


def train(
    trainer: keras.Model,
    model: keras.Model,
    data: keras.utils.PyDataset | Any,
    validation: ArrayData | Any | None,
    plan: Plan,
    steps: int | None,
) -> keras.callbacks.History:
    """Run a compiled trainer (the model itself, or a distiller around it) over the data.

    Args:
        trainer: what is fitted.
        model: what is validated; compiled.
        data: a dataset in the order to train in.
        validation: arrays or a dataset; `None` trains to the last epoch.
        plan: how long and how fast.
        steps: batches an epoch; `None` where the data does not know.

    Returns:
        The history, with `val_loss` and the validation metrics of the model.

    Raises:
        WorkError: when the loss is no longer a finite number. The model has then the weights of
            the best epoch, or its first ones.
    """
    # Left to the first step, TensorFlow would trace that step twice.
    trainer.optimizer.build(trainer.trainable_variables)
    first = model.get_weights()
    callbacks: list[keras.callbacks.Callback] = [keras.callbacks.TerminateOnNaN()]
    if steps is None:
        callbacks.append(cosine_by_epoch(plan.learning_rate, plan.epochs))
    if validation is not None:
        callbacks += [_Validate(model, validation), _best_weights(plan)]
    total = None if steps is None else steps * plan.epochs
    bar = ProgressBar(f"training {model.name}", total) if plan.progress else None
    if bar is not None:
        callbacks.append(bar)
    try:
        with warnings.catch_warnings():
            # Keras says so at the end of every pass over a dataset that does not know its length.
            warnings.filterwarnings("ignore", message="Your input ran out of data")
            history = trainer.fit(
                data,
                epochs=plan.epochs,
                shuffle=False,
                verbose=0,
                callbacks=[*callbacks, *plan.callbacks],
            )
    finally:
        if bar is not None:
            bar.close()
    _check_finite(model, history, first, plan)
    return history


def _best_weights(plan: Plan) -> keras.callbacks.Callback:
    # Validation loss, not accuracy: on few samples many epochs tie in accuracy.
    return keras.callbacks.EarlyStopping(
        monitor="val_loss",
        mode="min",
        patience=plan.epochs if plan.patience is None else plan.patience,
        restore_best_weights=True,
        start_from_epoch=plan.settled,
    )


class _Validate(keras.callbacks.Callback):
    """Scores the model on the validation data at the end of each epoch.

    Not left to the trainer's `fit`: a distiller would run the teacher on the validation data
    too, and report the distance to it as the loss.
    """

    def __init__(self, model: keras.Model, data: ArrayData | Any) -> None:
        super().__init__()
        self._validated = model
        self._data = data

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:  # noqa: ARG002
        """Add the figures to the epoch's logs, where later callbacks and the history look."""
        if isinstance(self._data, ArrayData):
            figures = self._validated.evaluate(
                self._data.x,
                self._data.y,
                sample_weight=self._data.weights,
                batch_size=VALIDATION_BATCH_SIZE,
                verbose=0,
                return_dict=True,
            )
        else:
            figures = self._validated.evaluate(self._data, verbose=0, return_dict=True)
        if logs is not None:
            logs.update({f"val_{name}": value for name, value in figures.items()})


def _check_finite(
    model: keras.Model, history: keras.callbacks.History, first: list[Any], plan: Plan
) -> None:
    losses = np.array(history.history["loss"], dtype=float)
    if np.isfinite(losses).all():
        return
    if not all(np.isfinite(weight).all() for weight in model.get_weights()):
        model.set_weights(first)
    epoch = int(np.flatnonzero(~np.isfinite(losses))[0]) + 1
    raise WorkError(
        f"The loss of model '{model.name}' is no longer a number in epoch {epoch}: lower "
        f"learning_rate={plan.learning_rate:g}, or check the data for extreme values."
    )
