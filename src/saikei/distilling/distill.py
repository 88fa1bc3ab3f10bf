"""`distill`: train a student on the labels and on the outputs of a teacher."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import keras

from saikei.arguments import checked
from saikei.distilling.distiller import compile_distiller
from saikei.distilling.feature_teacher import feature_distiller
from saikei.distilling.features import Features, pair_features
from saikei.distilling.stored_teacher import StoredTeacher
from saikei.distilling.teacher_batches import TeacherBatches
from saikei.distilling.teachers import (
    How,
    check_how,
    check_suited,
    output_distiller,
    soft_targets,
    targets_of,
)
from saikei.errors import DataError, InputError, TrainingWarning
from saikei.graph import IgnoredClass, mark, read
from saikei.hub import runs_tasks
from saikei.limits import is_number
from saikei.scoring.class_weights import ClassWeight, weighed
from saikei.training.loop import seed_random_layers
from saikei.training.loop import train as run
from saikei.training.plan import Plan, verbosity
from saikei.training.prepared import Prepared, compile_fresh, prepare
from saikei.training.provenance import recording, training_rows
from saikei.training.rate import beats_constant, suited_rate
from saikei.training.sparsity import HasTarget, holding_zeros
from saikei.training.targets import Targets

# For weights that are fresh: of the rates tried on small networks, it distilled best.
FRESH = 3e-3
# Weight of the true labels, where there are some.
ALPHA = 0.5


@checked
@runs_tasks("student teacher", data=("train", "validation"))
def distill(
    student: keras.Model,
    teacher: keras.Model | StoredTeacher,
    train: Any,
    validation: Any = None,
    *,
    epochs: int = 10,
    batch_size: int = 64,
    learning_rate: float | None = None,
    temperature: float = 2.0,
    alpha: float | None = None,
    features: Features | None = None,
    feature_weight: float = 0.5,
    teacher_predictions: How = "auto",
    top_k: int | None = None,
    loss: Any = None,
    patience: int | None = None,
    seed: int = 0,
    progress: bool = True,
    verbose: Literal[0, 1, 2, "auto"] | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    sparsify: HasTarget | None = None,
    keep_zeros: bool = True,
    class_weight: ClassWeight | None = None,
) -> keras.callbacks.History:
    """Train a student in place to predict like its teacher; the teacher is not changed.

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

    With arrays the teacher runs once over the data, before training, and its outputs are
    stored, features as long as they take at most 256 MiB; otherwise it runs on every batch. So
    the members of a fused teacher run once, however many epochs there are. Layers inside the
    student that augment do not matter to that, since the teacher sees what the student is given.
    A dataset that augments is another matter: there the teacher has to be live. Schedule,
    validation, best weights, seed and the state in which the student is left are those of `fit`.

    Args:
        student: A built model; it is trained in place.
        teacher: A built model with the student's inputs and outputs; both give probabilities, or
            one gives logits. Or a `saikei.training.StoredTeacher`: its predictions, made before.
        train: As in `fit`; sample weights count for both terms. Padding that the student's mask
            covers counts for neither; what `ignore_class` names is learned from the teacher
            alone. Labels are not needed: `x`, `(x,)`, `(x, None)` or a dataset of inputs is enough
            to learn from the teacher alone.
        validation: As in `fit`; the loss on the true labels decides. Without labels in both, the
            loss on what the teacher predicts does.
        epochs: Passes over the data.
        batch_size: Samples a step; datasets bring their own.
        learning_rate: The peak of the schedule. `None` takes 3e-3 for a student that does no
            better than a constant yet (not 1e-3 as in `fit`, since of the rates tried on small
            networks it distilled best); for weights that are carried over it is found as in `fit`.
        temperature: T, positive; unused for regression.
        alpha: Weight of the true labels, from 0 (teacher only) to 1 (labels only). `None` is 0.5,
            or 0 where there are no labels.
        features: Names of layers, student → teacher, whose outputs are compared; names are those
            of `profile`, also for layers of nested models. `"auto"` takes layers that have the
            same name in both, at up to four depths: the ends of stages of one resolution.
            `None` compares no features.
        feature_weight: W, above 0 and up to 1 (features only, so that the layers behind them stay
            as they are).
        teacher_predictions: `"stored"` runs the teacher once over the data, arrays or a dataset,
            whose rows may come in any order but must be the same in each pass; `"live"` runs it
            at every step; `"auto"` stores up to 1 GiB for arrays, and is live for more, and for a
            dataset, which may augment.
        top_k: Of each prediction of the teacher, only the probabilities of so many likeliest
            classes are stored, which takes 8 k bytes for each token of a language model instead of
            4 for each token of its vocabulary; the others share the rest evenly, see
            `saikei.distilling.TopK`. `None` keeps all classes.
        loss: Loss on the true labels; `None` as in `fit`.
        patience: Stop after so many epochs without a lower validation loss; `None` never stops.
        seed: As in `fit`.
        progress: Whether to show a progress bar.
        verbose: As in `keras.Model.fit`, 0 for nothing, 1 or `"auto"` for the progress bar and 2
            for one line an epoch; `None` goes by `progress`.
        callbacks: More Keras callbacks, run after ours.
        sparsify: A `saikei.Sparsify`: zeros that come gradually over the first two thirds of the
            steps, and the epoch with the best weights is one after that.
        keep_zeros: Whether kernels that are sparse keep their exact zeros, as in `fit`.
        class_weight: A weight for each class number, or `"balanced"`, for arrays; they become
            sample weights, as `saikei.scoring.weigh_classes` makes them.

    Returns:
        Keras's history: `loss` is the sum, `student_loss`, `distillation_loss` and, with features,
        `feature_loss` its parts. What else it has is as in `fit`.

    Raises:
        ModelError: When the teacher and the student have different inputs or outputs or are one
            model, or no features are found, or the student has a `call` of its own to look into.
        DataError: When the data does not fit the student, or predictions are to be stored and a
            dataset brings rows without a stored prediction.
        InputError: When an argument is out of range, or a layer's output cannot be compared.
        WorkError: When the loss stops being a number.

    Warns:
        TrainingWarning: When training made the student worse, so that it stays as it was, or there
            are no labels and `alpha` is not given.
    """
    rate = FRESH if learning_rate is None else learning_rate
    plan = Plan(epochs, batch_size, rate, patience, seed, verbosity(progress, verbose), callbacks)
    _check_arguments(temperature, alpha, feature_weight)
    check_how(teacher_predictions, teacher, features)
    check_suited(student, teacher)
    if isinstance(teacher, keras.Model):
        mark(student, [one for one in read(teacher).marks if isinstance(one, IgnoredClass)])
    if top_k is not None:
        teacher = _top_k(teacher, train, top_k, features, teacher_predictions)
    targets = targets_of(student, teacher)
    train = weighed(student, train, class_weight, loss)
    ready = prepare(student, train, validation, loss, batch_size, targets)
    balance = _balance(student, alpha, ready.labelled)
    seed_random_layers(student, seed)
    distiller, batches = _distiller(
        student,
        teacher,
        ready,
        temperature,
        balance,
        features,
        feature_weight,
        teacher_predictions,
        batch_size,
        seed,
    )
    compile_fresh(student, ready.tasks, plan.learning_rate, plain=False)
    own_errors = batches.own_errors() if isinstance(batches, TeacherBatches) else nullcontext()
    if learning_rate is None:
        with own_errors:
            found = _suited(student, distiller, ready, batches, targets)
        plan = replace(plan, learning_rate=found)
        compile_fresh(student, ready.tasks, found, plain=False)
        seed_random_layers(student, seed)
    optimizer = plan.optimizer(student, ready.steps)
    mark(student, teacher.past if isinstance(teacher, StoredTeacher) else training_rows(teacher))
    own_errors = batches.own_errors() if isinstance(batches, TeacherBatches) else nullcontext()
    with (
        recording(student, ready.arrays, ready.dataset, "distill"),
        holding_zeros(student, optimizer, plan, ready.steps, sparsify, keep_zeros) as whole_plan,
        own_errors,
    ):
        compile_distiller(distiller, ready.tasks, optimizer, ready.labelled)
        beats = partial(beats_constant, student, ready, None if ready.labelled else targets.labels)
        try:
            return run(
                distiller, student, batches, ready.validation, whole_plan, ready.steps, beats
            )
        finally:
            compile_fresh(student, ready.final_tasks, plan.learning_rate)


def _top_k(
    teacher: keras.Model | StoredTeacher,
    train: Any,
    top_k: int,
    features: Features | None,
    how: How,
) -> StoredTeacher:
    """The likeliest classes of the teacher's predictions for the training data."""
    if isinstance(teacher, StoredTeacher) or features is not None or how == "live":
        raise InputError(
            f"top_k={top_k} stores predictions of a teacher that is a model: leave out features "
            "and teacher_predictions='live'; for a StoredTeacher, give it to StoredTeacher.of."
        )
    return StoredTeacher.of(teacher, train, top_k)


def _suited(
    student: keras.Model, distiller: keras.Model, ready: Prepared, batches: Any, targets: Targets
) -> float:
    def compiled(optimizer: keras.optimizers.Optimizer) -> keras.Model:
        compile_distiller(distiller, ready.tasks, optimizer, ready.labelled)
        return distiller

    labels = None if ready.labelled else targets.labels
    return suited_rate(student, ready, FRESH, compiled, batches, labels)


def _balance(student: keras.Model, alpha: float | None, labelled: bool) -> float:
    """The weight of the true labels."""
    if labelled:
        return ALPHA if alpha is None else alpha
    if alpha is None:
        warnings.warn(
            f"The train data holds no labels, so '{student.name}' learns from its teacher alone "
            "(alpha=0).",
            TrainingWarning,
            stacklevel=3,
        )
    elif alpha > 0:
        raise DataError(
            f"alpha={alpha:g} is the weight of the true labels, and the train data holds none: "
            "give (x, y), or alpha=0 to learn from the teacher alone."
        )
    return 0.0


def _distiller(
    student: keras.Model,
    teacher: keras.Model | StoredTeacher,
    ready: Prepared,
    temperature: float,
    alpha: float,
    features: Features | None,
    feature_weight: float,
    how: How,
    batch_size: int,
    seed: int,
) -> tuple[keras.Model, Any]:
    soft = soft_targets(teacher, ready.tasks, temperature)
    if features is not None and not isinstance(teacher, StoredTeacher):
        pairs = pair_features(read(student), read(teacher), features)
        stored = None if how == "auto" else how == "stored"
        if pairs:
            return feature_distiller(
                student,
                teacher,
                pairs,
                ready,
                soft,
                alpha,
                feature_weight,
                batch_size,
                seed,
                stored,
            )
    return output_distiller(student, teacher, ready, soft, alpha, how, batch_size, seed)


def _check_arguments(temperature: float, alpha: float | None, feature_weight: float) -> None:
    if not (is_number(temperature) and temperature > 0):
        raise InputError(f"temperature={temperature!r}: give a positive number, such as 2.")
    if alpha is not None and not (is_number(alpha) and 0 <= alpha <= 1):
        raise InputError(
            f"alpha={alpha!r}: give the weight of the true labels, from 0 to 1, such as 0.5."
        )
    if not (is_number(feature_weight) and 0 < feature_weight <= 1):
        raise InputError(
            f"feature_weight={feature_weight!r}: give a number above 0, up to 1, such as 0.5; to "
            "compare no features, give features=None."
        )
