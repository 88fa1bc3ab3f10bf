"""The diagonal of the empirical Fisher matrix: how much the loss depends on each weight."""

from __future__ import annotations

from typing import Any

import numpy as np
from keras import tree

from saikei.calibration.samples import calibration_samples
from saikei.fusion.soups.architecture import Tensors
from saikei.fusion.soups.trial import places_of
from saikei.graph import Graph, build
from saikei.graph.lineage import ignored_number
from saikei.importance.gradients import weight_gradients
from saikei.importance.objective import objective
from saikei.importance.sensitivity import BATCH
from saikei.tensors import to_floats


def fisher_information(graph: Graph, data: Any, samples: int) -> Tensors:
    """`E[(∂L/∂w)²]` for each weight, by place; over gradients of a few samples at a time.

    Args:
        graph: of a member, with its weights.
        data: `(x, y)` arrays.
        samples: how many rows, the same ones at every call.

    Raises:
        EditError: when the labels do not fit the outputs.
    """
    model = build(graph)
    chosen = calibration_samples(graph, data, samples)
    first = tree.map_structure(lambda a: a[: 4 * BATCH], chosen.with_labels())
    outputs = [to_floats(o) for o in tree.flatten(model(first[0], training=False))]
    gradients_of = weight_gradients(
        model, objective(outputs, first[1], ignored_number(graph.marks))
    )
    place = {id(weight): number for number, weight in enumerate(model.weights)}
    total = [np.zeros(weight.shape, np.float64) for weight in model.weights]
    steps = range(0, len(chosen) - len(chosen) % BATCH or len(chosen), BATCH)
    for start in steps:
        x, y = tree.map_structure(lambda a, at=start: a[at : at + BATCH], chosen.with_labels())
        for sum_, gradient in zip(total, gradients_of(x, tree.flatten(y)), strict=True):
            sum_ += np.square(gradient, dtype=np.float64)
    variables = places_of(graph, model)
    return {where: total[place[id(v)]] / len(steps) for where, v in variables.items()}
