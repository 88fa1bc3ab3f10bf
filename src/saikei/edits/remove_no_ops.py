"""`RemoveNoOps`: leave out what does nothing at inference."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from saikei.edits.base import Edit
from saikei.edits.folding.no_ops import around, is_no_op
from saikei.edits.folding.readers import forced_to_train
from saikei.errors import EditError
from saikei.graph import Graph, redirect


@dataclass(frozen=True)
class RemoveNoOps(Edit):
    """Leave out every layer that gives back what it is given when the model predicts.

    These are Dropout and its kin, noise, augmentation (`RandomFlip`, `RandAugment` and the like),
    stochastic depth, a `SpectralNormalization` around a layer, identities, linear activations, a
    ReLU of a ReLU, and padding, cropping, pooling, resizing, rescaling, reshaping and transposing
    that change nothing. Predictions stay the same; *training does not*: dropout, noise and
    augmentation are gone from it too, so use this on a model that is done, or add them again.

    A layer that gives one of the model's outputs stays, because outputs are known by its name, and
    so does dropout that is called with `training=True`.

    Args:
        layers: Only these, by name; all that do nothing when empty.
        exclude: Layers that stay, by name.

    Example:
        >>> edit = RemoveNoOps(exclude=("dropout",))
        >>> RemoveNoOps.from_dict(edit.to_dict()) == edit
        True
    """

    exact: ClassVar[bool] = True
    computes: ClassVar[bool] = False
    layers: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    def apply(self, graph: Graph, data: Any = None) -> Graph:
        """The graph without them; `data` is not used."""
        self.check_layers(graph)
        outputs = {ref.call for ref in graph.output_refs()}
        chosen = [
            index
            for index, call in enumerate(graph.calls)
            if self.selects(call.operation) and index not in outputs and is_no_op(graph, index)
        ]
        bare = {
            name: operation.bare()
            for name, operation in graph.operations.items()
            if operation.spectral is not None
            and name not in self.exclude
            and (not self.layers or name in self.layers)
            and not any(forced_to_train(c) for c in graph.calls if c.operation == name)
        }
        self._check(graph, [*bare, *(graph.calls[index].operation for index in chosen)])
        shorter = redirect(graph, dict(around(graph, index) for index in chosen))
        return shorter.with_operations(
            {name: operation for name, operation in bare.items() if name in shorter.operations}
        )

    def _check(self, graph: Graph, found: list[str]) -> None:
        for name in self.layers:
            if name not in found:
                kind = graph.operations[name].kind
                raise EditError(
                    f"RemoveNoOps names layer '{name}' ({kind}), which does something, is "
                    "excluded, or gives an output of the model: leave it out of layers."
                )
        if not found:
            raise EditError(
                f"RemoveNoOps would change nothing: model '{graph.name}' has no layer, apart from "
                "those that give its outputs or are excluded, that does nothing at inference."
            )
