"""How a student gets the outputs of its teacher: from memory, or by running it at every step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

import keras

from saikei.dataset_batches import dataset_batches
from saikei.distilling.distances import SoftTargets, teacher_tasks
from saikei.distilling.distiller import LiveDistiller, StoredDistiller
from saikei.distilling.stored_teacher import StoredTeacher
from saikei.distilling.teacher_batches import (
    Lookup,
    TeacherBatches,
    batches_with_outputs,
    stored_batches,
)
from saikei.errors import DataError, InputError, ModelError
from saikei.graph import copy_model, read
from saikei.scoring.outputs import read_outputs
from saikei.scoring.predictions import bytes_of_outputs
from saikei.scoring.task import Task
from saikei.training.digests import digest_data
from saikei.training.prepared import Prepared
from saikei.training.targets import Targets

How = Literal["auto", "stored", "live"]
_KEY = "teacher"
# Outputs of a teacher are stored up to this size; with "stored" there is no limit.
MOST_STORED_BYTES = 2**30

Shape = tuple[int | None, ...]


def output_distiller(
    student: keras.Model,
    teacher: keras.Model | StoredTeacher,
    ready: Prepared,
    soft: Any,
    alpha: float,
    how: How,
    batch_size: int,
    seed: int,
) -> tuple[keras.Model, Any]:
    """A distiller that compares outputs, and the batches that it takes.

    Args:
        student: Will be trained in place.
        teacher: Is not changed.
        ready: The training data.
        soft: The distance between the outputs.
        alpha: Weight of the true labels.
        how: The `teacher_predictions` of `distill`.
        batch_size: Samples a step, for arrays.
        seed: The seed of the order of the samples.

    Raises:
        DataError: When the teacher's outputs cannot be learnt from, or the stored ones are not
            for this data.
    """
    batches: Any
    if isinstance(teacher, StoredTeacher):
        batches = _stored(teacher, ready, batch_size, seed)
    elif how == "live" or (how == "auto" and not _storable(teacher, ready)):
        live = LiveDistiller(copy_model(teacher), student, soft, alpha)
        return live, ready.batches(batch_size, seed)
    else:
        batches = stored_batches(teacher, ready, _KEY, batch_size, seed)
    return StoredDistiller(student, soft, alpha), batches


def soft_targets(
    teacher: keras.Model | StoredTeacher, tasks: Sequence[Task], temperature: float
) -> SoftTargets:
    """The distance between the outputs of a teacher and of a student.

    Args:
        teacher: A model, or its stored predictions.
        tasks: What the student learns, one task for each output.
        temperature: The temperature of the distillation.
    """
    if isinstance(teacher, StoredTeacher):
        return SoftTargets(tasks, teacher.tasks(tasks), temperature, teacher.top_k)
    return SoftTargets(tasks, teacher_tasks(teacher, tasks), temperature)


def _storable(teacher: keras.Model, ready: Prepared) -> bool:
    """Whether the outputs of a teacher for all rows are known to take little enough memory."""
    if ready.arrays is None:
        return False
    return bytes_of_outputs(teacher, ready.arrays.x) * len(ready.arrays) <= MOST_STORED_BYTES


def check_how(how: str, teacher: keras.Model | StoredTeacher, features: Any) -> None:
    """Refuse an unknown `teacher_predictions`, or one that does not suit the teacher.

    Raises:
        InputError: Naming the argument.
    """
    if how not in get_args(How):
        raise InputError(
            f"teacher_predictions={how!r}: give one of {', '.join(map(repr, get_args(How)))}."
        )
    if isinstance(teacher, StoredTeacher) and (how == "live" or features is not None):
        what = "features" if features is not None else "teacher_predictions='live'"
        raise InputError(
            f"{what} with a StoredTeacher, which holds predictions alone: give the model itself "
            "as the teacher."
        )


def targets_of(student: keras.Model, teacher: keras.Model | StoredTeacher) -> Targets:
    """What the teacher predicts, in the place of labels that there are not.

    Args:
        student: Whose labels they would be.
        teacher: A model, or stored predictions that are known by their inputs.
    """
    if isinstance(teacher, StoredTeacher):
        count = len(read_outputs(student).each)
        return Targets(student, None, teacher.of_rows, teacher.logits(count))
    return Targets.of(student, teacher)


def check_suited(student: keras.Model, teacher: keras.Model | StoredTeacher) -> None:
    """Refuse a teacher with other inputs or outputs than the student.

    Raises:
        ModelError: Naming both, and what differs.
    """
    if isinstance(teacher, StoredTeacher):
        name, sides = "The stored teacher", ["output"]
    elif not isinstance(teacher, keras.Model):
        raise ModelError(
            f"The teacher is a {type(teacher).__name__}: give a keras.Model, or a StoredTeacher."
        )
    elif teacher is student:
        raise ModelError(
            f"Teacher and student are the same model, '{student.name}': give the student's "
            "original, or another model, as the teacher."
        )
    else:
        name, sides = f"Teacher '{teacher.name}'", ["input", "output"]
    for side in sides:
        ours, theirs = _shapes(student, side), _shapes(teacher, side)
        fits = len(ours) == len(theirs) and all(map(_compatible, ours, theirs))
        if not fits:
            raise ModelError(
                f"{name} has {side}s {theirs}, but student '{student.name}' has {ours}: "
                f"{_fix(side, ours, theirs)}."
            )


def _fix(side: str, ours: list[Shape], theirs: list[Shape]) -> str:
    """What makes a teacher suit a student that it does not."""
    if side == "input":
        return (
            "give its predictions in its place, StoredTeacher(teacher.predict(x)) of the inputs x "
            "that it takes for the same rows"
        )
    fitting = [
        i for i, shape in enumerate(theirs) if len(ours) == 1 and _compatible(ours[0], shape)
    ]
    if fitting and len(theirs) > 1:
        return (
            "give the part of it that has the same outputs, "
            f"keras.Model(teacher.inputs, teacher.outputs[{fitting[0]}])"
        )
    return "give a teacher that was trained for the same outputs"


def _stored(teacher: StoredTeacher, ready: Prepared, batch_size: int, seed: int) -> Any:
    if ready.arrays is not None:
        beside = teacher.beside(ready.arrays)
        return batches_with_outputs(ready, _KEY, beside, batch_size, seed)
    lookup = teacher.lookup() or _in_order(teacher, ready.dataset)
    count = ready.steps or sum(1 for _ in dataset_batches(ready.dataset, "train", labels=False))
    return TeacherBatches(ready.dataset, _KEY, lookup, count)


def _in_order(teacher: StoredTeacher, dataset: Any) -> Lookup:
    """Predictions without known rows belong to a dataset if it always comes in one order."""
    first, again = (digest_data(dataset, "train") for _ in range(2))
    if len(first) != len(again) or (first != again).any():
        raise DataError(
            "'train' comes in another order, or with other rows, in each pass, so it is not known "
            "which row a stored prediction is for: make them with StoredTeacher.of(teacher, data), "
            "or give data in a fixed order."
        )
    if len(first) != len(teacher):
        raise DataError(
            f"There are {len(teacher):,} stored predictions for {len(first):,} training rows: "
            "give one row for each, in the order of the data."
        )
    return Lookup(first, teacher.outputs)


def _shapes(teacher: keras.Model | StoredTeacher, side: str) -> list[Shape]:
    if isinstance(teacher, StoredTeacher):
        return teacher.shapes()
    graph = read(teacher)
    refs = graph.input_refs() if side == "input" else graph.output_refs()
    return [graph.spec(ref).shape for ref in refs]


def _compatible(ours: Shape, theirs: Shape) -> bool:
    return len(ours) == len(theirs) and all(
        a == b or a is None or b is None for a, b in zip(ours, theirs, strict=True)
    )
