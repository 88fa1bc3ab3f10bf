"""`Dequantize`: the weights of quantised layers as floating-point numbers again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from saikei.edits.base import Edit
from saikei.errors import EditError
from saikei.graph import Graph, Operation
from saikei.rules import why_whole


@dataclass(frozen=True)
class Dequantize(Edit):
    """Turn layers that `model.quantize` has quantised into plain ones with the same weights.

    Kernels and tables of `"int8"`, `"int4"` and `"float8"` layers become the floating-point
    numbers that they stand for, in the dtype that the layer had before; LoRA factors are merged
    into them. Such layers can be cut, replaced and trained like others, and the result can be
    quantised again. It is not quite the same function: a quantised layer may round its inputs
    too.

    Raises:
        EditError: when no layer is quantised, or one is in another mode.

    Example:
        >>> Dequantize.from_dict(Dequantize().to_dict()) == Dequantize()
        True
    """

    exact: ClassVar[bool] = False

    def apply(self, graph: Graph, data: Any = None) -> Graph:
        """The graph without quantised layers; `data` is not used."""
        changed = {
            name: _in_floats(operation)
            for name, operation in graph.operations.items()
            if operation.quantised is not None
        }
        if not changed:
            raise EditError(
                f"Dequantize would change nothing: model '{graph.name}' has no quantised layer."
            )
        return graph.with_operations(changed)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready arguments."""
        return {}

    @classmethod
    def from_dict(cls, arguments: Mapping[str, Any]) -> Dequantize:
        """The inverse of `to_dict`."""
        return cls(**arguments)


def _in_floats(operation: Operation) -> Operation:
    quantised = operation.quantised
    assert quantised is not None
    if quantised.weights is None:
        raise EditError(
            f"Dequantize does not know the weights of {operation.kind} layer "
            f"{why_whole(operation.name, quantised.mode)}."
        )
    return replace(
        operation,
        kind=quantised.kind,
        config=quantised.config,
        weights=quantised.weights,
        quantised=None,
    )
