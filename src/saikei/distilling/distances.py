"""The distance between what a teacher and a student say, for every kind of task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import keras
from keras import ops, tree

from saikei.distilling.weighing import Weighing
from saikei.scoring.links import link_of, logits_of
from saikei.scoring.outputs import read_outputs
from saikei.scoring.task import Task


class SoftTargets(keras.distillation.DistillationLoss):
    """Temperature-scaled distance for class outputs, the task's own loss for regression.

    Outputs that are probabilities are turned into logits first (log p are logits up to a
    constant, which softmax ignores), and the probability of a yes into the pair of logits of no
    and yes. So one loss, `T² · KL(softmax(teacher / T) ‖ softmax(student / T))`, serves binary,
    multiclass and
    multilabel outputs; it is a mean over the batch and over labels, as the supervised loss is.

    Hinton et al., "Distilling the Knowledge in a Neural Network", 2015.

    Args:
        tasks: of the student, one for each output, flattened.
        teacher_tasks: of the teacher; they may differ in `from_logits`.
        temperature: T; higher is softer.
    """

    def __init__(
        self, tasks: Sequence[Task], teacher_tasks: Sequence[Task], temperature: float
    ) -> None:
        self._tasks = tuple(zip(teacher_tasks, tasks, strict=True))
        self._temperature = float(temperature)
        self.weighing = Weighing()

    def compute_loss(self, teacher_outputs: Any, student_outputs: Any, **kwargs: Any) -> Any:  # noqa: ARG002
        """The sum over outputs, a scalar."""
        losses = [
            self._distance(place, tasks, teacher, student)
            for place, (tasks, teacher, student) in enumerate(
                zip(
                    self._tasks,
                    tree.flatten(teacher_outputs),
                    tree.flatten(student_outputs),
                    strict=True,
                )
            )
        ]
        return ops.sum(ops.stack(losses))

    def validate_outputs(self, teacher_outputs: Any, student_outputs: Any) -> None:
        """Nothing to do: shapes were compared, with clear messages, before training."""

    def _distance(self, place: int, tasks: tuple[Task, Task], teacher: Any, student: Any) -> Any:
        theirs, ours = tasks
        teacher = ops.stop_gradient(teacher)
        if ours.kind == "regression":
            return ops.mean(self.weighing.loss(place, ours.loss)(teacher, student))
        p, q = (
            ops.softmax(logits / self._temperature, axis=-1)
            for logits in (class_logits(theirs, teacher), class_logits(ours, student))
        )
        each = keras.losses.kl_divergence(p, q)
        return self.weighing.mean(place, each, student) * self._temperature**2


def teacher_tasks(teacher: keras.Model, tasks: Sequence[Task]) -> tuple[Task, ...]:
    """The student's tasks with the teacher's word on whether outputs are logits.

    Args:
        teacher: a model with the same outputs.
        tasks: of the student, one for each output.
    """
    each = read_outputs(teacher).each
    return tuple(
        task
        if task.kind == "regression"
        else replace(task, from_logits=output.activation not in ("softmax", "sigmoid"))
        for task, output in zip(tasks, each, strict=True)
    )


def class_logits(task: Task, outputs: Any) -> Any:
    """Logits of exclusive classes on the last axis, from the outputs of a class task.

    Args:
        task: binary, multiclass or multilabel.
        outputs: `(batch, …, outputs)`.

    Returns:
        `(batch, …, classes)`; for binary and multilabel `(batch, …, outputs, 2)`.
    """
    link = "linear" if task.from_logits else link_of(task.kind)
    logits = logits_of(ops.cast(outputs, "float32"), link)
    if task.kind == "multiclass":
        return logits
    return ops.stack([ops.zeros_like(logits), logits], axis=-1)
