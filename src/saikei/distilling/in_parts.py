"""`train_part`: train a network in parts that give the same as one training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import keras

from saikei.distilling.distiller import compile_distiller
from saikei.distilling.stored_teacher import StoredTeacher
from saikei.distilling.teacher_batches import TeacherBatches
from saikei.distilling.teachers import (
    check_suited,
    output_distiller,
    soft_targets,
    targets_of,
)
from saikei.errors import DataError, InputError
from saikei.graph import mark
from saikei.limits import EPOCHS, check_whole
from saikei.training.advance import Curves, advance, at_epoch
from saikei.training.loop import seed_random_layers
from saikei.training.parts import TrainingSettings, TrainingState
from saikei.training.plan import Part, Plan
from saikei.training.prepared import Prepared, compile_for, compile_fresh, prepare
from saikei.training.provenance import recording, training_rows
from saikei.training.rate import suited_rate
from saikei.training.soft_labels import softened
from saikei.training.sparsity import holding_zeros, sparse_kernels
from saikei.training.targets import Targets

# Learning rates for fresh weights, with and without a teacher; see `distill` and `fit`.
_FRESH_DISTILLED, _FRESH = 3e-3, 1e-3
# The rate search tries Adam's rates; those of SGD are larger by about so much.
_SGD_TO_ADAM = 30

Teacher: TypeAlias = keras.Model | StoredTeacher | None


def train_part(
    model: keras.Model,
    teacher: Teacher,
    train: Any,
    validation: Any,
    settings: TrainingSettings,
    *,
    state: TrainingState | None = None,
    until: int,
    total: int,
    seed: int = 0,
    loss: Any = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> tuple[TrainingState, Curves]:
    """Train a model from a state up to an epoch; the model ends with the best weights so far.

    The parts of a training give bit for bit what the whole training gives at once, also when each
    part runs in a new process: the order of the rows of arrays, what is mixed and the random layers
    depend on the seed and the epoch alone, and the state holds the rest. Up to the epoch
    `(1 - settings.decay) · total`, where the learning rate begins to fall, the state does not
    depend on `total` either, so that a training can be continued for longer than was planned.

    Three things are out of reach. On the torch backend a dropout layer without a `seed` of its own
    draws from torch's global generator. A `tf.data.Dataset` or `DataLoader` that draws a new order
    in each pass goes its own way. And a backend may compute other numbers with another number of
    threads.

    Args:
        model: A built model. Without a state its weights are the first ones; with a state they do
            not matter.
        teacher: A model, or `StoredTeacher` for predictions that were made before; `None` to learn
            from labels alone.
        train: Data as in `saikei.fit`.
        validation: Data in any of the same forms; its loss decides which weights are the best, of
            those before training and after each epoch.
        settings: How to train.
        state: The state after the part before; `None` for the first part.
        until: The number of epochs that are trained afterwards, those of the state included.
        total: The number of epochs of the whole training.
        seed: Seed of the order of rows and of random layers; the same in all parts.
        loss: A Keras loss as in `saikei.fit`.
        callbacks: More Keras callbacks.

    Returns:
        The state after the last epoch; and for each logged quantity, its value after each epoch of
        this part.

    Raises:
        DataError: If the data does not fit the model.
        InputError: If an argument is out of range, or a setting does not suit the data.
        ModelError: If teacher and model have different inputs or outputs.
        DivergenceError: If the loss is no longer a finite number; a `WorkError`. The model has
            then the best weights.
    """
    begin = 0 if state is None else state.epoch
    check_whole("total", total, 1, EPOCHS, InputError)
    check_whole("until", until, begin + 1, total, InputError)
    if validation is None:
        raise DataError("train_part needs validation data to find the best weights: give some.")
    if state is not None:
        model.set_weights(state.weights)
    ready = _ready(model, teacher, train, validation, settings, loss, begin)
    trainer = _trainer(model, teacher, ready, settings, seed)
    rate = settings.learning_rate if state is None else state.learning_rate
    with _own_errors(trainer.batches):
        rate = rate or _suited(model, teacher, ready, trainer, settings, seed)
    began = 0 if state is None else state.began
    plan = Plan(
        epochs=until,
        batch_size=settings.batch_size,
        learning_rate=rate,
        patience=None,
        seed=seed,
        verbose=0,
        callbacks=callbacks,
        part=Part(begin, began, total, settings),
    )
    optimizer = plan.optimizer(model, ready.steps)
    held = sparse_kernels(model) if state is None else state.held
    if teacher is not None:
        mark(model, teacher.past if isinstance(teacher, StoredTeacher) else training_rows(teacher))
    with (
        recording(model, ready.arrays, ready.dataset, "train_part"),
        holding_zeros(model, optimizer, plan, ready.steps, held=held),
        _own_errors(trainer.batches),
    ):
        compile_fresh(model, ready.tasks, rate, plain=False)
        trainer.compile(optimizer)
        try:
            return advance(
                trainer.fitted,
                model,
                trainer.batches,
                ready.validation,
                plan,
                ready.steps,
                state,
                held,
            )
        finally:
            compile_fresh(model, ready.tasks, rate)


@dataclass(frozen=True)
class _Trainer:
    """What is fitted, on which batches, and a function that compiles it with an optimizer."""

    fitted: keras.Model
    batches: Any
    compile: Callable[[keras.optimizers.Optimizer], None]


def _ready(
    model: keras.Model,
    teacher: Teacher,
    train: Any,
    validation: Any,
    settings: TrainingSettings,
    loss: Any,
    begin: int,
) -> Prepared:
    if teacher is not None:
        check_suited(model, teacher)
    targets = _targets(model, teacher)
    ready = prepare(model, train, validation, loss, settings.batch_size, targets)
    ready = replace(ready, dataset=at_epoch(ready.dataset, begin), begin=begin)
    return softened(model, ready, settings)


def _targets(model: keras.Model, teacher: Teacher) -> Targets | None:
    return None if teacher is None else targets_of(model, teacher)


def _trainer(
    model: keras.Model, teacher: Teacher, ready: Prepared, settings: TrainingSettings, seed: int
) -> _Trainer:
    if teacher is None:
        batches = ready.batches(settings.batch_size, seed)
        return _Trainer(
            model, batches, lambda optimizer: compile_for(model, ready.tasks, optimizer)
        )
    soft = soft_targets(teacher, ready.tasks, settings.temperature)
    alpha = settings.alpha if ready.labelled else 0.0
    # Outputs of mixed rows are those of a teacher that sees them, or mixed ones where it cannot.
    distiller, batches = output_distiller(
        model, teacher, ready, soft, alpha, "auto", settings.batch_size, seed
    )

    def compiled(optimizer: keras.optimizers.Optimizer) -> None:
        compile_distiller(distiller, ready.tasks, optimizer, ready.labelled)

    return _Trainer(distiller, batches, compiled)


def _suited(
    model: keras.Model,
    teacher: Teacher,
    ready: Prepared,
    trainer: _Trainer,
    settings: TrainingSettings,
    seed: int,
) -> float:
    """The learning rate that suits the first weights."""

    def compiled(optimizer: keras.optimizers.Optimizer) -> keras.Model:
        trainer.compile(optimizer)
        return trainer.fitted

    targets = None if ready.labelled else _targets(model, teacher)
    fresh = _FRESH if teacher is None else _FRESH_DISTILLED
    labels = None if targets is None else targets.labels
    compile_fresh(model, ready.tasks, fresh, plain=False)
    seed_random_layers(model, seed)
    found = suited_rate(model, ready, fresh, compiled, trainer.batches, labels)
    return found * (_SGD_TO_ADAM if settings.optimizer == "sgd" else 1)


def _own_errors(batches: Any) -> Any:
    return batches.own_errors() if isinstance(batches, TeacherBatches) else nullcontext()
