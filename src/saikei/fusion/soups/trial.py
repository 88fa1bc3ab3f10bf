"""How good weights are on held-out data: one network that takes any of them in turn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from saikei.batches import Array
from saikei.calibration.samples import calibration_inputs
from saikei.errors import FusionError
from saikei.fusion.soups.architecture import Place, Tensors, statistics, tensors, with_tensors
from saikei.fusion.soups.recalibrate import recalibrate
from saikei.graph import Graph, build, layers_of
from saikei.scoring.counted import Labels
from saikei.scoring.labels import labels_of
from saikei.scoring.observed import counted_labels
from saikei.scoring.predictions import predict_all
from saikei.scoring.prior import prior_outputs
from saikei.scoring.score import Score, score_outputs, summed_losses
from saikei.scoring.task import infer_tasks


class Trial:
    """Scores weights of one architecture on data.

    Args:
        graph: of the first member; weights come by its places.
        model: the first member, whose loss says what the labels mean.
        data: held-out `(x, y)` arrays.
        recalibrates: whether moving statistics are measured on the data before each score.

    Raises:
        DataError: when the data does not fit the model.
    """

    def __init__(self, graph: Graph, model: keras.Model, data: Any, recalibrates: bool) -> None:
        self._graph = graph
        self._data = data
        self._network = build(graph)
        self._variables = places_of(graph, self._network)
        self._inputs = None
        if recalibrates and statistics(graph):
            self._inputs = calibration_inputs(graph, data)
        predicted = predict_all(self._network, data)
        self.tasks = infer_tasks(model, predicted.y)
        labels = counted_labels(model, self.tasks, predicted)
        each = zip(self.tasks, predicted.outputs, labels, strict=True)
        self.labels: Sequence[Labels] = [labels_of(*one) for one in each]
        self._shapes = predicted.outputs

    def settled(self, numbers: Tensors) -> Tensors:
        """The weights with moving statistics of their own, where the trial measures them."""
        if self._inputs is None:
            return numbers
        measured = recalibrate(with_tensors(self._graph, numbers), self._inputs)
        found = tensors(measured, self._graph)
        return {**numbers, **{place: found[place] for place in statistics(self._graph)}}

    def losses(self, numbers: Tensors) -> Array:
        """The loss of each sample, nats or squared error, float64 `(n,)`.

        Raises:
            DataError: when a prediction is not finite.
        """
        return summed_losses(self.tasks, self.labels, self._outputs(numbers))

    def score(self, numbers: Tensors) -> Score:
        """The metric and the mean loss."""
        return score_outputs(self.tasks, self.labels, self._outputs(numbers))

    def own_outputs(self, members: Sequence[Tensors]) -> list[list[Array]]:
        """The outputs of members as they are, without new statistics.

        Raises:
            FusionError: naming a member whose predictions are not finite.
        """
        found = [self._outputs(numbers) for numbers in members]
        for number, outputs in enumerate(found, start=1):
            if not all(np.isfinite(one).all() for one in outputs):
                raise FusionError(
                    f"Member {number} predicts NaN or infinite numbers: leave it out."
                )
        return found

    def loss_of(self, outputs: Sequence[Array]) -> float:
        """The mean loss of predictions."""
        return float(summed_losses(self.tasks, self.labels, outputs).mean())

    def _outputs(self, numbers: Tensors) -> list[Array]:
        for place, variable in self._variables.items():
            if place in numbers:
                variable.assign(numbers[place])
        return predict_all(self._network, self._data).outputs

    def chance(self) -> float:
        """The mean loss of the best constant outputs: what a network has to be better than."""
        return self.loss_of(prior_outputs(self.tasks, self.labels, self._shapes))


def places_of(graph: Graph, model: keras.Model) -> dict[Place, Any]:
    """The variable of a model that was built from a graph, for each place."""
    layers = layers_of(graph, model)
    return {
        (name, weight): variable
        for name, operation in graph.operations.items()
        if operation.weights
        for weight, variable in zip(operation.weights, layers[name].weights, strict=True)
    }
