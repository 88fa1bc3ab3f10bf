"""Helpers of the replacing edits: calls, outputs, data formats, errors in the edit's name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from saikei.errors import EditError, ModelError
from saikei.graph import Call, Graph, Operation, value_inputs
from saikei.rules.wrapping import JOINED, STEPS

# Layers that hand on their input element by element.
_CARRIERS = frozenset(
    {"Identity", "Dropout", "Reshape", "Flatten", "Permute", STEPS, JOINED}
    | {f"SpatialDropout{n}D" for n in (1, 2, 3)}
    | {f"ops.{name}" for name in ("Reshape", "Transpose", "Squeeze", "ExpandDims", "Cast")}
)


@contextmanager
def in_the_name_of(edit: str, fix: str) -> Iterator[None]:
    """Turn what the graph cannot take into an error of the edit."""
    try:
        yield
    except ModelError as error:
        raise EditError(f"{edit}: {str(error).rstrip('.')}. To fix it, {fix}.") from error


def calls_of(graph: Graph, operation: str) -> list[Call]:
    """All calls of an operation, in order."""
    return [call for call in graph.calls if call.operation == operation]


def is_carrier(graph: Graph, call: Call) -> bool:
    """Whether a call hands its only input on, element by element."""
    operation = graph.operations[call.operation]
    if operation.kind == "Activation":
        return (operation.config or {}).get("activation") == "linear"
    return operation.kind in _CARRIERS and len(value_inputs(operation, call)) == 1


def output_operations(graph: Graph) -> set[str]:
    """Operations whose values are a model's outputs, up to reshapes and the like."""
    found: set[str] = set()
    for ref in graph.output_refs():
        call = graph.calls[ref.call]
        found.add(call.operation)
        while is_carrier(graph, call):
            call = graph.calls[call.inputs()[0].call]
            found.add(call.operation)
    return found


def channels_first(graph: Graph, index: int) -> bool:
    """Whether channels are axis 1 of a call's output, by the nearest data format before it."""
    waiting, seen = [index], {index}
    while waiting:
        current = waiting.pop(0)
        call = graph.calls[current]
        operation = graph.operations[call.operation]
        data_format = (operation.config or {}).get("data_format")
        if data_format is not None:
            return bool(data_format == "channels_first")
        if operation.kind in ("Dense", "EinsumDense", "Reshape", "Permute"):
            return False
        before = {ref.call for ref in call.inputs()} - seen
        seen |= before
        waiting.extend(sorted(before))
    return False


def policy_of(operation: Operation, dtype: str, weighted: bool) -> Any:
    """The dtype policy for what replaces an operation.

    Args:
        operation: What is replaced. One of `keras.ops` has no policy and computes as it is fed.
        dtype: The dtype of the outputs.
        weighted: Whether the replacement has weights, which half precision keeps in full.
    """
    policy = (operation.config or {}).get("dtype")
    if policy is not None and "Quantized" not in str(policy):
        return policy
    return f"mixed_{dtype}" if weighted and dtype in ("float16", "bfloat16") else dtype
