"""The loop that `fit` and `distill` share: schedule, validation, best weights, progress."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from saikei.batches import ArrayData
from saikei.errors import WorkError
from saikei.training.best import BestState, Yardstick, unknown_end
from saikei.training.plan import Plan
from saikei.training.progress import ProgressBar
from saikei.training.schedule import cosine_by_epoch


def train(
    trainer: keras.Model,
    model: keras.Model,
    data: keras.utils.PyDataset | Any,
    validation: ArrayData | Any | None,
    plan: Plan,
    steps: int | None,
    knows: Callable[[], bool],
) -> keras.callbacks.History:
    """Run a compiled trainer (the model itself, or a distiller around it) over the data.

    The model ends in the best state that it was in: before training, or after an epoch, by the
    validation loss. Without validation it is the first or the last one, by the loss that is
    trained, on some of the training data, or the last one where the first knew nothing yet.

    Args:
        trainer: what is fitted.
        model: what is validated; compiled.
        data: a dataset in the order to train in.
        validation: arrays or a dataset; `None` compares the first and the last state.
        plan: how long and how fast.
        steps: batches an epoch; `None` where the data does not know.
        knows: whether the model does better than a constant; see `BestState.settle`.

    Returns:
        The history, with `val_loss` and the validation metrics of the model. Beside it stand
        `start`, the figures before training, `best_epoch`, 0 where training made it no better,
        and the `learning_rate` at its peak.

    Raises:
        WorkError: when the loss is no longer a finite number. The model has then the weights of
            the best epoch, or its first ones.

    Warns:
        TrainingWarning: when training made the model worse, so that it stays as it was.
    """
    # Left to the first step, TensorFlow would trace that step twice.
    trainer.optimizer.build(trainer.trainable_variables)
    yardstick = Yardstick(trainer, model, data, validation)
    best = BestState(model, yardstick.figures(), plan)
    callbacks: list[keras.callbacks.Callback] = [keras.callbacks.TerminateOnNaN()]
    if steps is None:
        callbacks.append(cosine_by_epoch(plan.learning_rate, plan.epochs))
    if validation is not None:
        callbacks += [_Validate(yardstick), best]
    total = None if steps is None else steps * plan.epochs
    bar = ProgressBar(f"training {model.name}", total) if plan.progress else None
    if bar is not None:
        callbacks.append(bar)
    try:
        with unknown_end():
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
    _check_finite(model, history, best.first, plan)
    best.settle(yardstick, knows)
    history.start, history.best_epoch = best.start, best.epoch
    history.learning_rate = plan.learning_rate
    return history


class _Validate(keras.callbacks.Callback):
    """Scores the model on the validation data at the end of each epoch.

    Not left to the trainer's `fit`: a distiller would run the teacher on the validation data
    too, and report the distance to it as the loss.
    """

    def __init__(self, yardstick: Yardstick) -> None:
        super().__init__()
        self._yardstick = yardstick

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:  # noqa: ARG002
        """Add the figures to the epoch's logs, where later callbacks and the history look."""
        if logs is not None:
            logs.update(self._yardstick.figures())


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
