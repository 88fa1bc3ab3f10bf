"""`distill`: train a student on the labels and on what a teacher says."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras

from saikei.errors import DataError, InputError, ModelError
from saikei.graph import copy_model, read
from saikei.training.batches import ArrayData, ShuffledBatches, first_batch
from saikei.training.distiller import LiveDistiller, StoredDistiller, compile_distiller
from saikei.training.feature_teacher import feature_distiller
from saikei.training.features import Features, pair_features
from saikei.training.loop import Plan
from saikei.training.loop import train as run
from saikei.training.prepared import compile_fresh, prepare
from saikei.training.provenance import inherit_rows, recording
from saikei.training.seeding import seed_random_layers
from saikei.training.soft_targets import SoftTargets, teacher_tasks
from saikei.training.sparsity import HasTarget, holding_zeros
from saikei.training.told import ask


def distill(
    student: keras.Model,
    teacher: keras.Model,
    train: Any,
    validation: Any = None,
    *,
    epochs: int = 10,
    batch_size: int = 64,
    learning_rate: float = 3e-3,
    temperature: float = 2.0,
    alpha: float = 0.5,
    features: Features | None = None,
    feature_weight: float = 0.5,
    loss: Any = None,
    patience: int | None = None,
    seed: int = 0,
    progress: bool = True,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    sparsify: HasTarget | None = None,
    keep_zeros: bool = True,
) -> keras.callbacks.History:
    """Train a student in place to answer like its teacher; the teacher is not changed.

    Minimises `alpha · loss(labels) + (1 - alpha) · T² · KL(teacher ‖ student)` with
    `keras.distillation`, both distributions at temperature T. The gradient of the KL term
    shrinks with 1 / T²; the factor T², which Keras applies, undoes that, so that `alpha` means
    the same balance at every temperature. For regression the second term is the task's loss
    between the two outputs. Several outputs are summed.

    With `features`, tensors inside the student learn to be like tensors inside the teacher: `w`
    being `feature_weight`, the loss is `(1 - w)` times the above plus `w` times the mean over
    layers of `mean((P(s) - t)²) / variance(t)`. Where the widths differ, P is a dense layer over
    the channels; it starts from a least-squares fit, learns along with the student and is
    dropped at the end. The finer of two resolutions is averaged down to the coarser (Romero et
    al., "FitNets: Hints for Thin Deep Nets", 2015).

    With arrays the teacher runs once over the data, before training, and what it says is
    stored, features as long as they take at most 256 MiB; otherwise it runs on every batch.
    Schedule, validation, best weights, seed and the state in which the student is left are
    those of `fit`.

    Args:
        student: a built model; it is trained in place.
        teacher: a built model with the student's inputs and outputs; both give probabilities, or
            one gives logits.
        train: as in `fit`, but without sample weights, which Keras's distillation ignores.
        validation: as in `fit`; the loss on the true labels decides.
        epochs: passes over the data.
        batch_size: samples a step; datasets bring their own.
        learning_rate: the peak of the schedule.
        temperature: T, positive; unused for regression.
        alpha: weight of the true labels, from 0 (teacher only) to 1 (labels only).
        features: names of layers, student → teacher, whose outputs are compared; names are those
            of `profile`, also for layers of nested models. `"auto"` takes layers that have the
            same name in both, at up to four depths: the ends of stages of one resolution.
            `None` compares no features.
        feature_weight: w, above 0 and up to 1 (features only, so that what lies behind them stays
            as it is).
        loss: loss on the true labels; `None` as in `fit`.
        patience: stop after so many epochs without a lower validation loss; `None` never stops.
        seed: as in `fit`.
        progress: whether to show a progress bar.
        callbacks: more Keras callbacks, run after ours.
        sparsify: a `saikei.Sparsify`: zeros that come gradually over the first two thirds of the
            steps, and the epoch with the best weights is one after that.
        keep_zeros: whether kernels that are sparse keep their exact zeros, as in `fit`.

    Returns:
        Keras's history: `loss` is the sum, `student_loss`, `distillation_loss` and, with features,
        `feature_loss` its parts.

    Raises:
        ModelError: when the teacher and the student have different inputs or outputs or are one
            model, or no features are found, or the student has a `call` of its own to look into.
        DataError: when the data does not fit the student.
        InputError: when an argument is out of range, or a layer's output cannot be compared.
        WorkError: when the loss stops being a number.
    """
    plan = Plan(epochs, batch_size, learning_rate, patience, seed, progress, callbacks)
    _check_arguments(temperature, alpha, feature_weight)
    ready = prepare(student, train, validation, loss, batch_size)
    _check_no_weights(train, ready.arrays)
    _check_suited(student, teacher)
    pairs = () if features is None else pair_features(read(student), read(teacher), features)
    seed_random_layers(student, seed)
    soft = SoftTargets(ready.tasks, teacher_tasks(teacher, ready.tasks), temperature)
    distiller: keras.Model
    batches: Any
    if pairs:
        distiller, batches = feature_distiller(
            student, teacher, pairs, ready, soft, alpha, feature_weight, batch_size, seed
        )
    elif ready.arrays is not None:
        distiller = StoredDistiller(student, soft, alpha)
        told = {"x": ready.arrays.x, "teacher": ask(teacher, ready.arrays.x)}
        batches = ShuffledBatches(ArrayData(told, ready.arrays.y), batch_size, seed)
    else:
        distiller = LiveDistiller(copy_model(teacher), student, soft, alpha)
        batches = ready.dataset
    optimizer = plan.optimizer(ready.steps)
    compile_fresh(student, ready.tasks, learning_rate)
    inherit_rows(student, [teacher])
    with (
        recording(student, ready.arrays, ready.dataset, "distill"),
        holding_zeros(student, optimizer, plan, ready.steps, sparsify, keep_zeros) as whole_plan,
    ):
        compile_distiller(distiller, ready.tasks, optimizer)
        return run(distiller, student, batches, ready.validation, whole_plan, ready.steps)


def _check_arguments(temperature: float, alpha: float, feature_weight: float) -> None:
    if not (math.isfinite(temperature) and temperature > 0):
        raise InputError(f"temperature={temperature!r}: give a positive number, such as 2.")
    if not 0 <= alpha <= 1:
        raise InputError(
            f"alpha={alpha!r}: give the weight of the true labels, from 0 to 1, such as 0.5."
        )
    if not 0 < feature_weight <= 1:
        raise InputError(
            f"feature_weight={feature_weight!r}: give a number above 0, up to 1, such as 0.5; to "
            "compare no features, give features=None."
        )


def _check_no_weights(train: Any, arrays: ArrayData | None) -> None:
    weighted = arrays.weights is not None if arrays else len(first_batch(train, "train")) == 3
    if weighted:
        raise DataError(
            "'train' holds sample weights, which keras.distillation ignores: leave them out, or "
            "use fit."
        )


def _check_suited(student: keras.Model, teacher: keras.Model) -> None:
    if teacher is student:
        raise ModelError(
            f"Teacher and student are the same model, '{student.name}': give the student's "
            "original, or another model, as the teacher."
        )
    for side in ("input", "output"):
        ours, theirs = _shapes(student, side), _shapes(teacher, side)
        fits = len(ours) == len(theirs) and all(map(_compatible, ours, theirs))
        if not fits:
            raise ModelError(
                f"Teacher '{teacher.name}' has {side}s {theirs}, but student '{student.name}' has "
                f"{ours}: distillation needs the same."
            )


def _shapes(model: keras.Model, side: str) -> list[tuple[int | None, ...]]:
    graph = read(model)
    refs = graph.input_refs() if side == "input" else graph.output_refs()
    return [graph.spec(ref).shape for ref in refs]


def _compatible(ours: tuple[int | None, ...], theirs: tuple[int | None, ...]) -> bool:
    return len(ours) == len(theirs) and all(
        a == b or a is None or b is None for a, b in zip(ours, theirs, strict=True)
    )
