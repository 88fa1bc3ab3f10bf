"""The loop that `fit` and `distill` share: schedule, validation, best weights, progress."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any

import keras
import numpy as np
from keras import tree
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from saikei.batches import ArrayData, as_numpy
from saikei.errors import DataError, WorkError
from saikei.training.best import BestState, Ends, Yardstick, each_batch, unknown_end
from saikei.training.plan import Plan


def seed_random_layers(model: keras.Model, seed: int, epoch: int | None = None) -> None:
    """Set the state of every random layer (dropout, noise, augmentation) from one seed.

    Keras keeps that state in variables of the model that are not weights, and it moves on with
    every training step; without this a second training of equal weights would differ.

    Args:
        model: The model that is about to be trained.
        seed: The seed; each random layer gets its own stream of it.
        epoch: The epoch that begins, if each epoch has streams of its own.
    """
    weights = {id(variable) for variable in model.weights}
    states = [
        variable
        for variable in model.variables
        if id(variable) not in weights and variable.path.endswith("seed_generator_state")
    ]
    entropy = seed if epoch is None else [seed, epoch]
    streams = np.random.SeedSequence(entropy).generate_state(len(states) or 1)
    for variable, stream in zip(states, streams, strict=False):
        variable.assign(np.array([stream, 0], dtype="uint32"))


# Batches that are searched for what made a loss NaN.
_BATCHES = 10_000


def train(
    trainer: keras.Model,
    model: keras.Model,
    data: keras.utils.PyDataset | Any,
    validation: ArrayData | Any | None,
    plan: Plan,
    steps: int | None,
    beats_constant: Callable[[], bool],
) -> keras.callbacks.History:
    """Run a compiled trainer (the model itself, or a distiller around it) over the data.

    The model ends in the best state that it was in: before training, or after an epoch, by the
    validation loss. Without validation it is the first or the last one, by the loss that is
    trained, on some of the training data, or the last one where the first knew nothing yet.

    Args:
        trainer: What is fitted.
        model: What is validated; compiled.
        data: A dataset in the order to train in.
        validation: Arrays or a dataset; `None` compares the first and the last state.
        plan: How long and how fast.
        steps: Batches an epoch; `None` where the data does not know.
        beats_constant: Whether the model does better than a constant; see `BestState.settle`.

    Returns:
        The history, with `val_loss` and the validation metrics of the model. It also has
        `start`, the figures before training, `best_epoch`, 0 where training made it no better,
        and the `learning_rate` at its peak.

    Raises:
        DataError: When the loss is no longer a finite number because a batch of a dataset holds
            NaN.
        WorkError: When it is no finite number otherwise. The model has then the weights of the
            best epoch, or its first ones.

    Warns:
        TrainingWarning: When training made the model worse, so that it stays as it was.
    """
    # Left to the first step, TensorFlow would trace that step twice.
    trainer.optimizer.build(trainer.trainable_variables)
    yardstick = Yardstick(trainer, model, data, validation)
    best = BestState(model, yardstick.figures(), plan)
    watching = [] if validation is None else [Validate(yardstick), best]
    history = run_epochs(trainer, model, data, plan, steps, watching)
    check_finite(model, history, best.first, plan, data)
    best.settle(yardstick, beats_constant)
    history.start, history.best_epoch = best.start, best.epoch
    history.learning_rate = plan.learning_rate
    return history


def run_epochs(
    trainer: keras.Model,
    model: keras.Model,
    data: keras.utils.PyDataset | Any,
    plan: Plan,
    steps: int | None,
    watching: Sequence[keras.callbacks.Callback],
) -> keras.callbacks.History:
    """Fit a compiled trainer for the epochs of a plan.

    Args:
        trainer: The model that is fitted.
        model: The model that it trains, for the title of the progress bar.
        data: A dataset in the order to train in.
        plan: How long and how fast.
        steps: The number of batches of an epoch; `None` where the data does not know.
        watching: Callbacks that run before those of the plan.

    Returns:
        Keras's history.
    """
    callbacks: list[keras.callbacks.Callback] = [keras.callbacks.TerminateOnNaN()]
    if steps is None:
        callbacks += [plan.rate_by_epoch(), Ends()]
    callbacks += watching
    begin = 0 if plan.part is None else plan.part.begin
    total = None if steps is None else steps * (plan.epochs - begin)
    bar = _ProgressBar(f"training {model.name}", total) if plan.verbose == 1 else None
    if bar is not None:
        callbacks.append(bar)
    try:
        with unknown_end():
            return trainer.fit(
                data,
                initial_epoch=begin,
                epochs=plan.epochs,
                shuffle=False,
                verbose=2 if plan.verbose == 2 else 0,
                callbacks=[*callbacks, *plan.callbacks],
            )
    finally:
        if bar is not None:
            bar.close()


class Validate(keras.callbacks.Callback):
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


class _ProgressBar(keras.callbacks.Callback):
    """A Rich progress bar: shows batches done, time left and the last epoch's figures.

    Args:
        title: What is being trained.
        total: Number of batches of all epochs; `None` where the data does not know.
    """

    def __init__(self, title: str, total: int | None) -> None:
        super().__init__()
        self._title = title
        self._total = total
        self._bar: Progress | None = None
        self._task: Any = None

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:  # noqa: ARG002
        """Open the bar."""
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[figures]}"),
        )
        self._task = self._bar.add_task(self._title, total=self._total, figures="")
        self._bar.start()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:  # noqa: ARG002
        """One batch further."""
        if self._bar is not None:
            self._bar.advance(self._task)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:  # noqa: ARG002
        """Show the epoch's figures."""
        if self._bar is not None:
            shown = "  ".join(
                f"{name} {value:.4f}"
                for name, value in (logs or {}).items()
                if name == "loss" or name.startswith("val_")
            )
            self._bar.update(self._task, figures=shown)

    def close(self) -> None:
        """Stop the bar and leave it on the screen; safe to call twice, and after an error."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def check_finite(
    model: keras.Model, history: keras.callbacks.History, first: list[Any], plan: Plan, data: Any
) -> None:
    """Refuse a training whose loss is no longer a finite number.

    Args:
        model: The model that was trained; if its weights are not finite, it gets the first ones.
        history: The losses of the epochs.
        first: The weights before training.
        plan: How it was trained.
        data: A dataset that it was trained on.

    Raises:
        DataError: When a batch holds NaN.
        WorkError: When the loss is not finite otherwise.
    """
    losses = np.array(history.history["loss"], dtype=float)
    if np.isfinite(losses).all():
        return
    if not all(np.isfinite(weight).all() for weight in model.get_weights()):
        model.set_weights(first)
    _check_batches(data)
    epoch = history.epoch[int(np.flatnonzero(~np.isfinite(losses))[0])] + 1
    raise WorkError(
        f"The loss of model '{model.name}' is no longer a number in epoch {epoch}: lower "
        f"learning_rate={plan.learning_rate:g}, or check the data for extreme values."
    )


def _check_batches(data: Any) -> None:
    """Refuse a dataset with NaN in a later batch than the first, which alone is checked before.

    Args:
        data: What a model was trained on, until its loss was no longer a number.

    Raises:
        DataError: Naming the batch.
    """
    unknown_labels = False
    for number, batch in enumerate(islice(each_batch(data), _BATCHES), start=1):
        x, y, _ = keras.utils.unpack_x_y_sample_weight(batch)
        wrong = "inputs" if _has_nan(x) else "labels" if _has_nan(y) else None
        if number == 1:
            # Those of the first batch are there because the loss leaves them out.
            unknown_labels = wrong == "labels"
        elif wrong == "inputs" or (wrong == "labels" and not unknown_labels):
            raise DataError(
                f"Batch {number} of the train data holds NaN or infinite numbers in its {wrong}, "
                "so that the loss is no number: remove these rows or fill them."
            )


def _has_nan(part: Any) -> bool:
    arrays = [as_numpy(leaf) for leaf in tree.flatten(part) if leaf is not None]
    return any(a.dtype.kind == "f" and not np.isfinite(a).all() for a in arrays)
