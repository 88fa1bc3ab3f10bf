"""Keras's `Distiller` around a student, with a live teacher or with its stored outputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import tree

from saikei.distilling.distances import SoftTargets
from saikei.distilling.weighing import Weighing
from saikei.scoring.task import Task
from saikei.training.prepared import without_xla


class LiveDistiller(keras.distillation.Distiller):
    """Asks the teacher about every batch.

    Args:
        teacher: will be frozen, recursively.
        student: trained in place.
        distance: between what both give.
        alpha: weight of the true labels.
    """

    def __init__(
        self, teacher: keras.Model, student: keras.Model, distance: SoftTargets, alpha: float
    ) -> None:
        super().__init__(
            teacher, student, distance, student_loss_weight=float(alpha), name="distiller"
        )
        self.weighing: Weighing = distance.weighing

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        """The combined loss, of outputs in whatever containers model and data have them.

        Keras's Distiller maps over its losses, labels and outputs together. It keeps a list or
        dict of losses in a container of its own, and tf.data turns lists into tuples; as flat
        tuples the three fit. It also leaves out sample weights, and what regularisers add, which
        `fit` does not.
        """
        self.weighing.weights = None if sample_weight is None else tree.flatten(sample_weight)
        loss = super().compute_loss(
            x,
            None if y is None else tuple(tree.flatten(y)),
            None if y_pred is None else tuple(tree.flatten(y_pred)),
            sample_weight,
            training,
        )
        return sum(self.losses, loss)


class StoredDistiller(LiveDistiller):
    """Reads what the teacher said from the batch: inputs are `{"x": …, "teacher": …}`.

    Args:
        student: trained in place.
        distance: between what both give.
        alpha: weight of the true labels.
    """

    def __init__(self, student: keras.Model, distance: SoftTargets, alpha: float) -> None:
        super().__init__(_StoredTeacher(name="stored_teacher"), student, distance, alpha)

    def build(self, input_shape: Any = None) -> None:  # noqa: ARG002
        """Nothing to build: the student is built, and the stored teacher has no weights."""
        self.built = True

    def call(self, inputs: Any, training: bool | None = None, **kwargs: Any) -> Any:
        """The student's outputs."""
        return super().call(inputs["x"], training=training, **kwargs)


class _StoredTeacher(keras.Model):
    def build(self, input_shape: Any = None) -> None:  # noqa: ARG002
        self.built = True

    def call(self, inputs: Any, training: bool | None = None) -> Any:  # noqa: ARG002
        return inputs["teacher"]


def compile_distiller(
    distiller: LiveDistiller,
    tasks: Sequence[Task],
    optimizer: keras.optimizers.Optimizer,
    labelled: bool = True,
) -> None:
    """Compile a distiller with the student's losses, and its metric where it has one output."""
    distiller.compile(
        optimizer=optimizer,
        loss=distiller.weighing.losses([task.loss for task in tasks]),
        weighted_metrics=[tasks[0].keras_metric()] if labelled and len(tasks) == 1 else None,
        jit_compile=without_xla(),
    )
