"""`Dequantize`: the weights of quantised layers as floating-point numbers again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from saikei.edits.base import Edit
from saikei.errors import EditError
from saikei.graph import Graph, Operation
from saikei.rules import why_whole


@dataclass(frozen=True)
class Dequantize(Edit):
    """Turn layers that `model.quantize` has quantised into plain ones with the same weights.

    Kernels and tables of `"int8"`, `"int4"` and `"float8"` layers become floating-point
    numbers again, in the dtype that the layer had before; LoRA factors are merged
    into them. Such layers can be cut, replaced and trained like others, and the result can be
    quantised again. It is not quite the same function: a quantised layer may round its inputs
    too.

    Args:
        layers: The names of the layers to change; all that are quantised when empty.
        exclude: The names of layers that stay quantised.

    Raises:
        EditError: When no chosen layer is quantised, or one is in another mode.

    Example:
        >>> edit = Dequantize(exclude=("head",))
        >>> Dequantize.from_dict(edit.to_dict()) == edit
        True
    """

    exact: ClassVar[bool] = False
    layers: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    def apply(self, graph: Graph, data: Any = None) -> Graph:
        """The graph without quantised layers; `data` is not used."""
        self.check_layers(graph)
        changed = {
            name: _in_floats(operation)
            for name, operation in graph.operations.items()
            if operation.quantised is not None and self.selects(name)
        }
        plain = next((name for name in self.layers if name not in changed), None)
        if plain is not None:
            raise EditError(
                f"Dequantize names layer '{plain}', which is not quantised: leave it out."
            )
        if not changed:
            raise EditError(
                f"Dequantize would change nothing: model '{graph.name}' has no quantised layer"
                f"{' that is not excluded' if self.exclude else ''}."
            )
        return graph.with_operations(changed)


def _in_floats(operation: Operation) -> Operation:
    quantised = operation.quantised
    assert quantised is not None
    if quantised.weights is None:
        raise EditError(
            f"Dequantize does not know the weights of {operation.kind} layer "
            f"{why_whole(operation.name, quantised.mode)}."
        )
    return operation.in_floats()
