"""Constants that a class computes from its config: embeddings times the root of their width."""

from __future__ import annotations

from typing import Any

import numpy as np

from saikei.graph import Graph, TensorRef
from saikei.tensors import to_numpy


def absorb_scale(cut: Graph, made: Graph) -> None:
    """Make up for another factor of the embeddings in the weights of a rebuilt model.

    Gemma multiplies what it looks up by the root of the width, which is another number after a
    cut. The table is scaled by the ratio; where the table is the output's kernel too, the scale of
    the normalisation before it is divided by the ratio.

    Args:
        cut: The graph after the cut, whose factor is that of the original.
        made: The graph of the rebuilt model; its variables are assigned to.
    """
    old, new = (_factor(graph) for graph in (cut, made))
    if old is None or new is None or np.isclose(old, new):
        return
    ratio = old / new
    table = next(op for op in made.operations.values() if "embeddings" in op.weights)
    variable = table.weights["embeddings"].source
    variable.assign(to_numpy(variable.value) * ratio)
    calls = [call for call in made.calls if call.operation == table.name]
    if len(calls) < 2 or "reverse_embeddings" in table.weights:
        return
    scales = [made.operations[c.operation] for c in made.calls if _is_scale(made, c.operation)]
    if scales:
        (weight,) = scales[-1].weights.values()
        numbers = to_numpy(weight.source.value)
        offset = 1.0 if _adds_one(made, scales[-1].name) else 0.0
        weight.source.assign((numbers + offset) / ratio - offset)


def _factor(graph: Graph) -> float | None:
    """The constant that the first embeddings are multiplied by; `None` where there is none."""
    tables = {name for name, op in graph.operations.items() if "embeddings" in op.weights}
    first = next((i for i, call in enumerate(graph.calls) if call.operation in tables), None)
    for call in graph.calls:
        kind = graph.operations[call.operation].kind
        if kind == "ops.Multiply" and [ref.call for ref in call.inputs()] == [first]:
            constants = [leaf for leaf in call.leaves() if not isinstance(leaf, TensorRef)]
            return float(np.asarray(_plain(constants[0])).reshape(-1)[0]) if constants else None
    return None


def _plain(leaf: Any) -> Any:
    return to_numpy(leaf) if hasattr(leaf, "shape") else leaf


def _is_scale(graph: Graph, name: str) -> bool:
    """Whether it is a weight with one number for each channel that is called on the constant 1."""
    operation = graph.operations[name]
    shapes = [weight.shape for weight in operation.weights.values()]
    return (operation.config or {}).get("equation") == "a,b->ab" and len(shapes[0]) == 1


def _adds_one(graph: Graph, name: str) -> bool:
    """Whether 1 is added to the scale, as in Gemma's normalisation."""
    at = {i for i, call in enumerate(graph.calls) if call.operation == name}
    pending = set(at)
    for index, call in enumerate(graph.calls):
        if {ref.call for ref in call.inputs()} & pending:
            kind = graph.operations[call.operation].kind
            if kind == "ops.Add":
                return True
            if kind not in ("ops.Multiply",):
                pending.add(index)
            else:
                return False
    return False
