"""A distiller that also compares tensors inside the student and the teacher."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import tree

from saikei.distilling.distiller import StoredDistiller
from saikei.distilling.feature_distances import FeatureMatch
from saikei.distilling.features import Pair
from saikei.graph import read, tensor_values


class FeatureDistiller(StoredDistiller):
    """Minimises `(1 - weight) · answers + weight · features`.

    Each model runs once a step, and gives its outputs and its features together.

    Args:
        student: trained in place; nothing is added to it. Projectors belong to the distiller.
        pairs: the tensors that are compared.
        match: the distance between them.
        distance: a `keras.distillation.DistillationLoss` between the outputs.
        alpha: weight of the true labels among the answers.
        weight: of the features, from 0 to 1.
        teacher: a model that gives `{"outputs": […], "features": […]}`; it will be frozen. `None`
            when batches bring what it said: inputs are then `{"x": …, "told": …}`.
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
        """What the student and the teacher say of a batch, each as outputs and features."""
        if self._shown is None:
            x, told = inputs["x"], inputs["told"]
        else:
            x, told = inputs, self._shown(inputs, training=False)
        values = tensor_values(self._graph, self.student, x, self._refs, training)
        count = len(self._graph.output_refs())
        outputs = tree.pack_sequence_as(self._graph.outputs, values[:count])
        return {"outputs": outputs, "features": values[count:], "told": told}

    def compute_loss(
        self,
        x: Any = None,  # noqa: ARG002
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        """The weighted sum of all parts; `y_pred` is what `call` gives."""
        told = y_pred["told"]
        answers = super().compute_loss(
            {"teacher": told["outputs"]}, y, y_pred["outputs"], sample_weight, training
        )
        features = self.match(y_pred["features"], told["features"])
        self.feature_loss_tracker.update_state(features)
        return (1 - self._weight) * answers + self._weight * features

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        """The metrics of the student's outputs."""
        return super().compute_metrics(x, y, y_pred["outputs"], sample_weight)
