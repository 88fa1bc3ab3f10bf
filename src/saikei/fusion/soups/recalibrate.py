"""Moving statistics of BatchNormalization, measured anew on what the merged weights give it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from saikei.calibration.affordable import affordable
from saikei.calibration.run import Run
from saikei.graph import Graph, Operation


def has_statistics(graph: Graph) -> bool:
    """Whether a graph has BatchNormalization."""
    return any(operation.kind == "BatchNormalization" for operation in graph.operations.values())


def recalibrate(graph: Graph, inputs: Any) -> Graph:
    """The graph with the moving statistics that its own weights give on some inputs.

    Layer by layer, each behind those that were done before it; scales and offsets stay.

    Args:
        graph: with merged weights.
        inputs: nested as the graph nests its inputs, one sample a row.
    """
    run = Run(graph, affordable(graph, inputs, tensors=4))
    reads: dict[str, list[Any]] = {}
    for index, call in enumerate(graph.calls):
        operation = run.graph.operations[call.operation]
        if operation.kind == "BatchNormalization":
            # Of a shared layer the calls that came before count too.
            reads.setdefault(operation.name, []).append(run.value(call.inputs()[0]))
            run.replace(_measured(operation, reads[operation.name]))
        run.step(index)
    return run.graph


def _measured(operation: Operation, reads: list[Any]) -> Operation:
    config = operation.config or {}
    axis = config["axis"]
    position = axis[0] if isinstance(axis, (list, tuple)) else axis
    columns = np.concatenate([_columns(value, position) for value in reads]).astype(np.float64)
    found = {"moving_mean": columns.mean(axis=0), "moving_variance": columns.var(axis=0)}
    weights = {
        name: weight.with_array(found[name].astype(weight.numpy().dtype))
        if name in found
        else weight
        for name, weight in operation.weights.items()
    }
    return replace(operation, weights=weights)


def _columns(value: Any, position: int) -> Any:
    """One row for each number of a channel; steps that a mask leaves out are left out."""
    moved = np.moveaxis(value.array, position, -1)
    if value.mask is not None and position in (-1, value.array.ndim - 1):
        return moved[value.mask.astype(bool)].reshape(-1, moved.shape[-1])
    return moved.reshape(-1, moved.shape[-1])
