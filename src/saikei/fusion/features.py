"""The features of a model: what its last layers with weights read."""

from __future__ import annotations

from saikei.errors import FusionError
from saikei.graph import Graph, TensorRef


def penultimate(graph: Graph) -> list[TensorRef]:
    """The tensors that the last layers with weights read, on the way to every output.

    Args:
        graph: of a model.

    Raises:
        FusionError: when there is no such layer, or its features are no vectors.
    """
    found: dict[TensorRef, None] = {}
    waiting = list(reversed(graph.output_refs()))
    while waiting:
        call = graph.calls[waiting.pop().call]
        if not graph.operations[call.operation].weights:
            waiting += reversed(call.inputs())
            continue
        for ref in call.inputs():
            _check_vector(graph, ref, call.operation)
            found[ref] = None
    if not found:
        raise FusionError(f"Model '{graph.name}' has no layer with weights, so it has no features.")
    return list(found)


def _check_vector(graph: Graph, ref: TensorRef, layer: str) -> None:
    spec = graph.spec(ref)
    shape = (*spec.shape[:1], *spec.steps, *spec.shape[1:])
    if len(shape) != 2 or shape[1] is None:
        raise FusionError(
            f"Layer '{layer}' of model '{graph.name}' reads features of shape {shape}, no vectors: "
            "end the model in a pooling or Flatten before its last layer, or use on='outputs'."
        )
