"""How good weights are on held-out data: one network, into which they are put in turn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import keras
import numpy as np

from saikei.batches import Array
from saikei.calibration.affordable import affordable
from saikei.calibration.run import Run
from saikei.calibration.samples import calibration_inputs
from saikei.errors import FusionError
from saikei.fusion.soup.architecture import Tensors, WeightName, statistics, tensors, with_tensors
from saikei.graph import Graph, Operation, build, layers_of
from saikei.scoring.inference import infer_tasks
from saikei.scoring.labelled import Labelled
from saikei.scoring.observed import counted_labels
from saikei.scoring.outputs import read_outputs
from saikei.scoring.predictions import predict_all
from saikei.scoring.score import Score


class WeightScorer:
    """Scores weights of one architecture on data.

    Args:
        graph: The graph of the first member; weights are named as in it.
        model: The first member, whose compiled loss decides how labels are read.
        data: Held-out `(x, y)` arrays.
        recalibrates: Whether moving statistics are measured on the data before each score.

    Raises:
        DataError: When the data does not fit the model.
    """

    def __init__(self, graph: Graph, model: keras.Model, data: Any, recalibrates: bool) -> None:
        self._graph = graph
        self._data = data
        self._network = build(graph)
        self._variables = variables_of(graph, self._network)
        self._inputs = None
        if recalibrates and statistics(graph):
            self._inputs = calibration_inputs(graph, data)
        predicted = predict_all(self._network, data)
        outputs = read_outputs(graph)
        tasks = infer_tasks(model, predicted.y, outputs=outputs)
        labels = counted_labels(model, tasks, predicted, outputs)
        self.labelled = Labelled.of(tasks, labels, predicted.outputs)
        self._prior = self.labelled.prior(predicted.outputs)

    def recalibrated(self, numbers: Tensors) -> Tensors:
        """The weights with moving statistics measured anew, if `recalibrates`; else as they are."""
        if self._inputs is None:
            return numbers
        measured = recalibrate(with_tensors(self._graph, numbers), self._inputs)
        found = tensors(measured, self._graph)
        return {**numbers, **{key: found[key] for key in statistics(self._graph)}}

    def losses(self, numbers: Tensors) -> Array:
        """The loss of each row, nats or squared error, float64 `(n,)`.

        Raises:
            DataError: When a prediction is not finite.
        """
        return self.labelled.losses(self._outputs(numbers))

    def score(self, numbers: Tensors) -> Score:
        """The metric and the mean loss of weights."""
        return self.labelled.score(self._outputs(numbers))

    def own_outputs(self, members: Sequence[Tensors]) -> list[list[Array]]:
        """The outputs of members with their own moving statistics.

        Raises:
            FusionError: Naming a member whose predictions are not finite.
        """
        found = [self._outputs(numbers) for numbers in members]
        for number, outputs in enumerate(found, start=1):
            if not all(np.isfinite(one).all() for one in outputs):
                raise FusionError(
                    f"Member {number} predicts NaN or infinite numbers: leave it out."
                )
        return found

    def _outputs(self, numbers: Tensors) -> list[Array]:
        for key, variable in self._variables.items():
            if key in numbers:
                variable.assign(numbers[key])
        return predict_all(self._network, self._data).outputs

    def chance(self) -> float:
        """The mean loss of the best constant outputs."""
        return self.labelled.loss(self._prior)


def variables_of(graph: Graph, model: keras.Model) -> dict[WeightName, Any]:
    """The variables of a model that was built from a graph, by layer and name."""
    layers = layers_of(graph, model)
    return {
        (name, weight): variable
        for name, operation in graph.operations.items()
        if operation.weights
        for weight, variable in zip(operation.weights, layers[name].weights, strict=True)
    }


def has_statistics(graph: Graph) -> bool:
    """Whether a graph has BatchNormalization."""
    return any(operation.kind == "BatchNormalization" for operation in graph.operations.values())


def recalibrate(graph: Graph, inputs: Any) -> Graph:
    """Measure the moving statistics of BatchNormalization on some inputs, layer by layer.

    Each layer reads what the layers before it give with their new statistics; scales and offsets
    stay.

    Args:
        graph: A graph with merged weights.
        inputs: Nested as the graph nests its inputs, one sample a row.
    """
    run = Run(graph, affordable(graph, inputs, tensors=4))
    reads: dict[str, list[Any]] = {}
    for index, call in enumerate(graph.calls):
        operation = run.graph.operations[call.operation]
        if operation.kind == "BatchNormalization":
            # Of a shared layer all calls so far count.
            reads.setdefault(operation.name, []).append(run.value(call.inputs()[0]))
            run.replace(_with_statistics(operation, reads[operation.name]))
        run.step(index)
    return run.graph


def _with_statistics(operation: Operation, reads: list[Any]) -> Operation:
    config = operation.config or {}
    axis = config["axis"]
    position = axis[0] if isinstance(axis, (list, tuple)) else axis
    columns = np.concatenate([_channel_rows(value, position) for value in reads]).astype(np.float64)
    found = {"moving_mean": columns.mean(axis=0), "moving_variance": columns.var(axis=0)}
    weights = {
        name: weight.with_array(found[name].astype(weight.numpy().dtype))
        if name in found
        else weight
        for name, weight in operation.weights.items()
    }
    return replace(operation, weights=weights)


def _channel_rows(value: Any, position: int) -> Any:
    """One row for each position, one column for each channel; masked steps are left out."""
    moved = np.moveaxis(value.array, position, -1)
    if value.mask is not None and position in (-1, value.array.ndim - 1):
        return moved[value.mask.astype(bool)].reshape(-1, moved.shape[-1])
    return moved.reshape(-1, moved.shape[-1])
