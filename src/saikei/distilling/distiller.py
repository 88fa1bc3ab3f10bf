"""Keras's `Distiller` around a student, with a live teacher or with its stored outputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import tree

from saikei.distilling.distances import FeatureMatch, SoftTargets
from saikei.distilling.features import Pair
from saikei.distilling.weighing import Weighing
from saikei.graph import read, tensor_values
from saikei.scoring.task import Task
from saikei.training.prepared import without_xla


class LiveDistiller(keras.distillation.Distiller):
    """Runs the teacher on every batch.

    Args:
        teacher: Will be frozen, recursively.
        student: Trained in place.
        distance: Between the outputs of both.
        alpha: Weight of the true labels.
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
    """Reads the stored outputs of the teacher from the batch: inputs are `{"x": …, "teacher": …}`.

    Args:
        student: Trained in place.
        distance: Between the outputs of both.
        alpha: Weight of the true labels.
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


class FeatureDistiller(StoredDistiller):
    """Minimises `(1 - weight) · outputs + weight · features`.

    Each model runs once a step, and gives its outputs and its features together.

    Args:
        student: Trained in place; nothing is added to it. Projectors belong to the distiller.
        pairs: The tensors that are compared.
        match: The distance between them.
        distance: A `keras.distillation.DistillationLoss` between the outputs.
        alpha: Share of the loss on the true labels in the loss of the outputs, from 0 to 1.
        weight: The weight of the features, from 0 to 1.
        teacher: A model that gives `{"outputs": […], "features": […]}`; it will be frozen. `None`
            when batches bring its stored outputs: inputs are then `{"x": …, "teacher": …}`.
    """

    def __init__(
        self,
        student: keras.Model,
        pairs: Sequence[Pair],
        match: FeatureMatch,
        distance: Any,
        alpha: float,
        weight: float,
        teacher: keras.Model | None,
    ) -> None:
        super().__init__(student, distance, alpha)
        self.match = match
        self.feature_loss_tracker = keras.metrics.Mean(name="feature_loss")
        self._graph = read(student)
        self._refs = (*self._graph.output_refs(), *(pair.student.ref for pair in pairs))
        self._weight = float(weight)
        self._shown = teacher
        if teacher is not None:
            teacher.trainable = False

    @property
    def metrics(self) -> list[Any]:
        """Without Keras's total, which `loss` is already, and which leaves the features out."""
        return [metric for metric in super().metrics if metric is not self.total_loss_tracker]

    def call(self, inputs: Any, training: bool | None = None, **kwargs: Any) -> Any:  # noqa: ARG002
        """Outputs and features of the student and of the teacher for a batch."""
        if self._shown is None:
            x, theirs = inputs["x"], inputs["teacher"]
        else:
            x, theirs = inputs, self._shown(inputs, training=False)
        values = tensor_values(self._graph, self.student, x, self._refs, training)
        count = len(self._graph.output_refs())
        outputs = tree.pack_sequence_as(self._graph.outputs, values[:count])
        return {"outputs": outputs, "features": values[count:], "teacher": theirs}

    def compute_loss(
        self,
        x: Any = None,  # noqa: ARG002
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        """The weighted sum of all parts; `y_pred` is what `call` gives."""
        theirs = y_pred["teacher"]
        of_outputs = super().compute_loss(
            {"teacher": theirs["outputs"]}, y, y_pred["outputs"], sample_weight, training
        )
        features = self.match(y_pred["features"], theirs["features"])
        self.feature_loss_tracker.update_state(features)
        return (1 - self._weight) * of_outputs + self._weight * features

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        """The metrics of the student's outputs."""
        return super().compute_metrics(x, y, y_pred["outputs"], sample_weight)


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
