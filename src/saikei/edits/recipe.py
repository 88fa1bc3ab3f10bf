"""`Recipe`: edits in sequence, as a value that goes through JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from saikei.budget import Budget
from saikei.edits.base import Edit, check_budget, edit_from_dict, edit_to_dict
from saikei.edits.dequantize import Dequantize
from saikei.edits.drop_channels import DropChannels
from saikei.edits.factorize import Factorize
from saikei.edits.fold_batch_norm import FoldBatchNorm
from saikei.edits.prune_channels import PruneChannels
from saikei.edits.remove_layers import RemoveLayers
from saikei.edits.remove_no_ops import RemoveNoOps
from saikei.edits.replace_activation import ReplaceActivation
from saikei.edits.replace_head import ReplaceHead
from saikei.edits.replace_kernel import ReplaceKernel
from saikei.edits.replace_pooling import ReplacePooling
from saikei.edits.separate import Separate
from saikei.edits.sparsify import Sparsify
from saikei.errors import EditError
from saikei.graph import Graph, build
from saikei.reading import parse_json

EDITS: Mapping[str, type[Edit]] = MappingProxyType(
    {
        kind.__name__: kind
        for kind in (
            Dequantize,
            DropChannels,
            Factorize,
            FoldBatchNorm,
            PruneChannels,
            RemoveLayers,
            RemoveNoOps,
            ReplaceActivation,
            ReplaceHead,
            ReplaceKernel,
            ReplacePooling,
            Separate,
            Sparsify,
        )
    }
)


@dataclass(frozen=True)
class Recipe(Edit):
    """Edits that are applied one after the other; the model is built once, at the end.

    Args:
        edits: The edits, in order.

    Example:
        >>> recipe = Recipe([PruneChannels(keep=0.5)])
        >>> Recipe.from_json(recipe.to_json()) == recipe
        True
    """

    edits: tuple[Edit, ...]

    def __init__(self, edits: Iterable[Edit]) -> None:
        object.__setattr__(self, "edits", tuple(edits))
        if not self.edits:
            raise EditError("The recipe is empty: give at least one edit.")

    @property
    def exact(self) -> bool:
        """Whether all its edits are exact."""
        return all(edit.exact for edit in self.edits)

    def apply(self, graph: Graph, data: Any = None) -> Graph:
        """The graph after all edits."""
        for edit in self.edits:
            edited = edit.apply(graph, data)
            if any(isinstance(value, Budget) for value in vars(edit).values()):
                check_budget(edit, graph, build(edited))
            graph = edited
        return graph

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: the edits, each with its name."""
        return {"edits": [edit_to_dict(edit) for edit in self.edits]}

    def to_json(self) -> str:
        """The recipe as JSON text."""
        return json.dumps(self.to_dict(), indent=2)

    @classmethod
    def from_dict(cls, arguments: Mapping[str, Any]) -> Recipe:
        """The inverse of `to_dict`.

        Raises:
            EditError: When an edit is unknown or its arguments do not fit.
        """
        if not isinstance(arguments, Mapping):
            raise EditError("The recipe is not a JSON object with a list 'edits'.")
        entries = arguments.get("edits")
        if not isinstance(entries, list):
            raise EditError('The recipe has no list \'edits\': write {"edits": [{"edit": …}]}.')
        return cls(edit_from_dict(entry, "the recipe") for entry in entries)

    @classmethod
    def from_json(cls, text: str) -> Recipe:
        """Read a recipe from JSON text.

        Raises:
            EditError: When the text is no JSON, or not a recipe.
        """
        return cls.from_dict(parse_json(text, "The recipe", EditError))
