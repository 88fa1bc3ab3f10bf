"""A part of a training: from a state to a later one."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import keras

from saikei.batches import Array, ArrayData
from saikei.errors import DataError, WorkError, in_one_line
from saikei.training.best import BestState, Yardstick
from saikei.training.loop import Validate, check_finite, run_epochs, seed_random_layers
from saikei.training.parts import TrainingState
from saikei.training.plan import Plan

Curves = Mapping[str, tuple[float, ...]]


class DivergenceError(WorkError):
    """A training whose loss is no longer a finite number.

    Args:
        message: The reason, and a fix.
        state: The state after the last epoch; its best weights are finite.
    """

    def __init__(self, message: str, state: TrainingState | None = None) -> None:
        super().__init__(message)
        self.state = state


def advance(
    trainer: keras.Model,
    model: keras.Model,
    data: Any,
    validation: ArrayData | Any,
    plan: Plan,
    steps: int | None,
    state: TrainingState | None,
    held: tuple[int, ...],
) -> tuple[TrainingState, Curves]:
    """Run a compiled trainer from a state to the epoch of the plan.

    The model ends with the best weights so far. The random layers begin each epoch with a state
    that depends on the seed and the epoch alone, so that the parts of a training give exactly what
    the whole gives.

    Args:
        trainer: The model that is fitted: the model itself, or a distiller around it.
        model: The model that is validated, compiled, with the weights of the state.
        data: A dataset in the order to train in, from the epoch of the state on.
        validation: Arrays or a dataset.
        plan: How long and how fast; `part` is set.
        steps: The number of batches of an epoch; `None` where the data does not know.
        state: The state after the part before; `None` at the beginning.
        held: Positions of the kernels whose zeros are kept, for the new state.

    Returns:
        The state after the last epoch, and for each logged quantity its value after each epoch.

    Raises:
        DataError: When the loss is no finite number because a batch of a dataset holds NaN.
        DivergenceError: When it is no finite number otherwise. The model has then the best weights.
    """
    trainer.optimizer.build(trainer.trainable_variables)
    if state is not None and state.optimizer:
        for variable, number in zip(trainer.optimizer.variables, state.optimizer, strict=True):
            variable.assign(number)
    yardstick = Yardstick(trainer, model, data, validation)
    start = dict(yardstick.figures() if state is None else state.start)
    best = BestState(model, start, plan, state)
    last = _Last(trainer, model)
    watching = [_EpochSeeds(model, plan.seed), last, Validate(yardstick), best]
    history = run_epochs(trainer, model, data, plan, steps, watching)
    made = TrainingState(
        epoch=history.epoch[-1] + 1,
        weights=last.weights,
        optimizer=last.optimizer,
        best_weights=best.weights,
        best_loss=best.loss,
        best_epoch=best.epoch or 0,
        learning_rate=plan.learning_rate,
        began=0 if state is None else state.began,
        start=start,
        held=held,
        restarts=0 if state is None else state.restarts,
    )
    try:
        check_finite(model, history, list(best.weights), plan, data)
    except WorkError as error:
        raise DivergenceError(str(error), made) from None
    curves = {name: tuple(map(float, values)) for name, values in history.history.items()}
    return made, curves


class _EpochSeeds(keras.callbacks.Callback):
    """Gives the random layers their state for each epoch."""

    def __init__(self, model: keras.Model, seed: int) -> None:
        super().__init__()
        self._trained, self._seed = model, seed

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:  # noqa: ARG002
        """Set the states."""
        seed_random_layers(self._trained, self._seed, epoch)


class _Last(keras.callbacks.Callback):
    """Copies the last weights and the optimizer, before the best weights are put back."""

    def __init__(self, trainer: keras.Model, model: keras.Model) -> None:
        super().__init__()
        self._trainer, self._last = trainer, model
        self.weights: tuple[Array, ...] = ()
        self.optimizer: tuple[Array, ...] = ()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:  # noqa: ARG002
        """Copy them."""
        self.weights = tuple(self._last.get_weights())
        self.optimizer = tuple(
            keras.ops.convert_to_numpy(variable).copy()
            for variable in self._trainer.optimizer.variables
        )


def at_epoch(dataset: Any, epoch: int) -> Any:
    """A dataset as it is after some epochs.

    A `keras.utils.PyDataset` may change its order at the end of each epoch. So a copy goes through
    the ends of the epochs before; the given one stays as it is. Any other dataset keeps its order.

    Args:
        dataset: A dataset that `keras.Model.fit` takes.
        epoch: The number of epochs.

    Raises:
        DataError: If the dataset changes at the end of an epoch and cannot be copied.
    """
    if not isinstance(dataset, keras.utils.PyDataset):
        return dataset
    base = keras.utils.PyDataset
    kind = type(dataset)
    if kind.on_epoch_end is base.on_epoch_end and kind.on_epoch_begin is base.on_epoch_begin:
        return dataset
    try:
        copied = copy.deepcopy(dataset)
    # What a dataset of the caller's own holds may refuse in any way.
    except Exception as error:
        raise DataError(
            f"The {kind.__name__} changes from epoch to epoch and cannot be copied "
            f"({in_one_line(error)}), so it cannot be trained on in parts: give arrays, or a "
            "dataset that copy.deepcopy can copy."
        ) from error
    for _ in range(epoch):
        copied.on_epoch_begin()
        copied.on_epoch_end()
    return copied
