"""Which calls read a tensor, and helpers about masks and training."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from saikei.graph import Call, Graph, Operation, TensorRef, value_inputs

# Among the readers of a tensor, this means that it is an output of the model.
OUTPUT = -1


def readers(graph: Graph) -> dict[TensorRef, list[int]]:
    """For each tensor, the calls that read it, once for each time; `OUTPUT` for the model's."""
    found: defaultdict[TensorRef, list[int]] = defaultdict(list)
    for index, call in enumerate(graph.calls):
        for ref in value_inputs(graph.operations[call.operation], call):
            found[ref].append(index)
    for ref in graph.output_refs():
        found[ref].append(OUTPUT)
    return dict(found)


def makes_masks(graph: Graph) -> bool:
    """Whether some layer leaves a mask on its output."""
    return any(
        operation.kind == "Masking" or bool((operation.config or {}).get("mask_zero"))
        for operation in graph.operations.values()
    )


def passes_masks(operation: Operation) -> bool:
    """Whether a mask on the input is one on the output; other layers stop it."""
    return bool(getattr(operation.source, "supports_masking", False))


def forced_to_train(call: Call) -> bool:
    """Whether the call has `training=True`, as for dropout that stays on when predicting."""
    training: Any = call.kwargs.get("training")
    return bool(training)
