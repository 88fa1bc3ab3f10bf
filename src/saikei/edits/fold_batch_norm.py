"""`FoldBatchNorm`: take BatchNormalization into the weights of its neighbours."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from saikei.edits.base import Edit
from saikei.edits.folding.affine import CannotFoldError, of_batch_norm
from saikei.edits.folding.readers import forced_to_train, readers
from saikei.edits.folding.routes import Readers, Route, agreeing, route_ahead, route_back
from saikei.errors import EditError, listed
from saikei.graph import Graph, Operation, TensorRef, redirect


@dataclass(frozen=True)
class FoldBatchNorm(Edit):
    """Take each BatchNormalization into the weights of the linear layers next to it.

    With its moving statistics it is a scale and a shift of each channel. They go into the dense
    or convolutional layer before it (also through concatenation, addition and pooling, where
    nothing else reads what is between), or else into the layers that read it, where no padding
    is in the way. The layer that takes them keeps its name.

    Predictions stay the same up to rounding; *training does not*: nothing is normalised by the
    batch any more, so use this on a model that is done.

    Args:
        layers: Only these BatchNormalization layers, by name; all that can be when empty.
        exclude: Layers that stay as they are, by name.

    Example:
        >>> edit = FoldBatchNorm(exclude=("bn_1",))
        >>> FoldBatchNorm.from_dict(edit.to_dict()) == edit
        True
    """

    exact: ClassVar[bool] = True
    layers: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    def apply(self, graph: Graph, data: Any = None) -> Graph:
        """The graph without them; `data` is not used."""
        self.check_layers(graph)
        folded, changed = graph, False
        while True:
            routes, refused = self._routes(folded)
            if not routes:
                break
            folded, changed = _follow(folded, routes), True
        self._check(graph, refused, changed)
        return folded

    def _routes(self, graph: Graph) -> tuple[list[Route], dict[str, str]]:
        """Routes back if there are any, else routes ahead; and why others cannot be folded."""
        refused: dict[str, str] = {}
        reading = readers(graph)
        for direction in (route_back, route_ahead):
            found = []
            for index, call in enumerate(graph.calls):
                operation = graph.operations[call.operation]
                if not self._chosen(operation):
                    continue
                try:
                    found.append(self._route(graph, reading, index, direction))
                except CannotFoldError as reason:
                    _add_reason(refused, operation.name, str(reason))
            kept, disagreeing = agreeing(graph, found)
            for name, reason_why in disagreeing.items():
                _add_reason(refused, name, reason_why)
            if kept:
                return kept, refused
        return [], refused

    def _chosen(self, operation: Operation) -> bool:
        return operation.kind == "BatchNormalization" and self.selects(operation.name)

    def _route(
        self, graph: Graph, reading: Readers, index: int, direction: Callable[..., Route]
    ) -> Route:
        call = graph.calls[index]
        ref = call.inputs()[0]
        if forced_to_train(call):
            raise CannotFoldError("it is called with training=True")
        if graph.spec(ref) != call.outputs[0]:
            raise CannotFoldError("it changes the dtype")
        affine = of_batch_norm(graph.operations[call.operation], len(call.outputs[0].shape))
        route = direction(graph, reading, index, affine)
        for name in route.folded(graph):
            if name in self.exclude:
                raise CannotFoldError(f"'{name}' is excluded")
        return route

    def _check(self, graph: Graph, refused: Mapping[str, str], changed: bool) -> None:
        norms = [o.name for o in graph.operations.values() if o.kind == "BatchNormalization"]
        for name in self.layers:
            if name not in norms:
                raise EditError(
                    f"FoldBatchNorm names layer '{name}', which is a "
                    f"{graph.operations[name].kind}: name BatchNormalization layers."
                )
            if name in refused:
                raise EditError(
                    f"BatchNormalization '{name}' cannot be folded: {refused[name]}. Leave it out "
                    "of layers."
                )
        if not changed:
            reasons = listed((f"'{name}': {reason}" for name, reason in refused.items()), 4)
            raise EditError(
                f"FoldBatchNorm would change nothing in model '{graph.name}': "
                f"{reasons or 'it has no BatchNormalization to fold'}."
            )


def _add_reason(refused: dict[str, str], name: str, reason: str) -> None:
    known = refused.get(name)
    refused[name] = reason if known is None else f"{known}, and {reason}"


def _follow(graph: Graph, routes: list[Route]) -> Graph:
    """Change the layers that take a scale and shift, and bypass the BatchNormalization layers."""
    changed: dict[str, Operation] = {}
    around: dict[TensorRef, TensorRef] = {}
    for route in routes:
        changed.update(route.folded(graph))
        around[TensorRef(route.call, 0)] = graph.calls[route.call].inputs()[0]
    return redirect(graph.with_operations(changed), around)
