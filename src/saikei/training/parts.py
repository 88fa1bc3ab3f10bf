"""The settings and the state of a training that is done in parts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

from saikei.batches import Array
from saikei.codec import Jsonable
from saikei.errors import InputError
from saikei.limits import check_rate, check_whole, is_number

Optimizer = Literal["adam", "adamw", "sgd"]
_SHARES = ("alpha", "label_smoothing", "decay")


@dataclass(frozen=True)
class TrainingSettings(Jsonable):
    """How a network is trained, whatever the number of epochs.

    The learning rate rises over the first half epoch, is constant, and falls over the last
    epochs. So the epochs before it falls are the same for every total, and a short training is the
    beginning of a long one.

    Args:
        learning_rate: The constant rate. `None` finds it before the first epoch, as `saikei.fit`
            and `saikei.distill` do.
        optimizer: `"adam"`, `"adamw"`, or `"sgd"` with a momentum of 0.9.
        weight_decay: The decay of kernels per step, times the learning rate. Biases and other
            vectors do not decay.
        batch_size: Rows a step for arrays; a dataset has its own batches.
        temperature: The temperature of the distillation; without effect without a teacher.
        alpha: The weight of the true labels, from 0 (teacher only) to 1 (labels only); without
            effect without a teacher.
        label_smoothing: The share of each label that is spread evenly over the classes, from 0 to
            below 1. Needs arrays.
        mixup: The parameter of the Beta distribution that the shares of mixed pairs of rows are
            drawn from (Zhang et al., "mixup", 2018); 0 mixes nothing. Needs arrays.
        decay: The share of all epochs, at the end, in which the rate falls to 0.

    Raises:
        InputError: If a setting is out of range.
    """

    learning_rate: float | None = None
    optimizer: Optimizer = "adam"
    weight_decay: float = 0.0
    batch_size: int = 64
    temperature: float = 2.0
    alpha: float = 0.5
    label_smoothing: float = 0.0
    mixup: float = 0.0
    decay: float = 0.4

    def __post_init__(self) -> None:
        if self.learning_rate is not None:
            check_rate("learning_rate", self.learning_rate, InputError)
        if self.optimizer not in get_args(Optimizer):
            raise InputError(
                f"optimizer={self.optimizer!r}: give one of "
                f"{', '.join(map(repr, get_args(Optimizer)))}."
            )
        check_whole("batch_size", self.batch_size, kind=InputError)
        for name in _SHARES:
            value = getattr(self, name)
            if not (is_number(value) and 0 <= value <= 1):
                raise InputError(f"{name}={value!r}: give a number from 0 to 1.")
        if self.label_smoothing == 1:
            raise InputError("label_smoothing=1 leaves no label: give a number below 1.")
        for name in ("weight_decay", "mixup"):
            value = getattr(self, name)
            if not (is_number(value) and value >= 0):
                raise InputError(f"{name}={value!r}: give a number of at least 0.")
        if not (is_number(self.temperature) and self.temperature > 0):
            raise InputError(
                f"temperature={self.temperature!r}: give a positive number, such as 2."
            )


@dataclass(frozen=True, eq=False)
class TrainingState:
    """Where a training is after some epochs: all that the next epochs depend on.

    Args:
        epoch: Number of epochs that were trained.
        weights: The weights after the last epoch, in the order of `keras.Model.get_weights`.
        optimizer: The variables of the optimizer; empty for an optimizer that starts anew.
        best_weights: The weights with the lowest validation loss, of those before training and
            after each epoch.
        best_loss: Their validation loss.
        best_epoch: The epoch that they are from; 0 for those before training.
        learning_rate: The constant learning rate of the epochs to come.
        began: The epoch that the optimizer began with, from which the rate rises: 0 unless the
            training was started again at a lower rate.
        start: The validation figures before training.
        held: Positions, among the trainable variables, of the kernels whose zeros are kept.
        restarts: How often the training was started again at a lower rate.
    """

    epoch: int
    weights: tuple[Array, ...] = field(repr=False)
    optimizer: tuple[Array, ...] = field(repr=False)
    best_weights: tuple[Array, ...] = field(repr=False)
    best_loss: float
    best_epoch: int
    learning_rate: float
    began: int = 0
    start: Mapping[str, float] = field(default_factory=dict)
    held: tuple[int, ...] = ()
    restarts: int = 0

    def again(self, learning_rate: float, epoch: int) -> TrainingState:
        """The best weights of this state, to be trained on with a new optimizer.

        Args:
            learning_rate: The constant learning rate of the epochs to come.
            epoch: Number of epochs that count as trained.
        """
        return replace(
            self,
            epoch=epoch,
            weights=self.best_weights,
            optimizer=(),
            learning_rate=learning_rate,
            began=epoch,
            restarts=self.restarts + 1,
        )
