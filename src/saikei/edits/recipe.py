"""`Recipe`: edits in sequence, as a value that goes through JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar, Literal

from saikei.budget import Budget
from saikei.calibration.refit import refit
from saikei.calibration.surviving_outputs import Kept, both_kept
from saikei.edits.base import PRECISION, Edit, check_budget, edit_from_dict, edit_to_dict
from saikei.edits.dequantize import Dequantize
from saikei.edits.drop_channels import DropChannels
from saikei.edits.factorize import Factorize
from saikei.edits.fold_batch_norm import FoldBatchNorm
from saikei.edits.prune_channels import PruneChannels
from saikei.edits.prune_vocabulary import PruneVocabulary
from saikei.edits.quantize import Quantize
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

Refit = Literal["each", "once"]

EDITS: Mapping[str, type[Edit]] = MappingProxyType(
    {
        kind.__name__: kind
        for kind in (
            Dequantize,
            DropChannels,
            Factorize,
            FoldBatchNorm,
            PruneChannels,
            PruneVocabulary,
            Quantize,
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
        refit: When layers are refitted to the data, if there is any: after each edit to what the
            graph before it computed (`"each"`, as the edit's own `compensate` has it), or once at
            the end to what the graph before all edits computed (`"once"`). Layers in int8 cannot
            be refitted: they are quantised after it, where nothing but precision changes later.

    Example:
        >>> recipe = Recipe([PruneChannels(keep=0.5)])
        >>> Recipe.from_json(recipe.to_json()) == recipe
        True
    """

    # Each edit in it is asked.
    computes: ClassVar[bool] = False
    edits: Sequence[Edit]
    refit: Refit = "each"

    def check_arguments(self) -> None:
        """Refuse a recipe without edits, and another `refit`."""
        if self.refit not in ("each", "once"):
            raise EditError(f"Recipe(refit={self.refit!r}): use 'each' or 'once'.")
        if not self.edits:
            raise EditError("Recipe(edits=()): give at least one edit.")

    @property
    def exact(self) -> bool:
        """Whether all its edits are exact."""
        return all(edit.exact for edit in self.edits)

    def apply(self, graph: Graph, data: Any = None) -> Graph:
        """The graph after all edits."""
        if self.refit == "once":
            return self._refitted_once(graph, data)
        for edit in self.edits:
            edit.check_weights(graph)
            edited = edit.apply(graph, data)
            _check(edit, graph, edited)
            graph = edited
        return graph

    def _refitted_once(self, graph: Graph, data: Any) -> Graph:
        first = Recipe(self.edits[: before_precision(self.edits)], refit="once")
        edited, kept = first.unfitted(graph, data)
        if data is not None:
            edited = refit(graph, edited, data, kept=kept)
        for edit in self.edits[len(first.edits) :]:
            edit.check_weights(edited)
            edited = edit.unfitted(edited, data)[0]
        return edited

    def unfitted(self, graph: Graph, data: Any = None) -> tuple[Graph, Kept]:
        """The graph after all edits, before it is refitted."""
        kept: Kept = {}
        for edit in self.edits:
            edit.check_weights(graph)
            edited, own = edit.unfitted(graph, data)
            _check(edit, graph, edited)
            graph, kept = edited, both_kept(kept, own)
        return graph, kept

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: the edits, each with its name."""
        once = {"refit": "once"} if self.refit == "once" else {}
        return {"edits": [edit_to_dict(edit) for edit in self.edits], **once}

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
        edits = [edit_from_dict(entry, "the recipe") for entry in entries]
        return cls(edits, arguments.get("refit", "each"))

    @classmethod
    def from_json(cls, text: str) -> Recipe:
        """Read a recipe from JSON text.

        Raises:
            EditError: When the text is no JSON, or not a recipe.
        """
        return cls.from_dict(parse_json(text, "The recipe", EditError))


def _check(edit: Edit, graph: Graph, edited: Graph) -> None:
    if any(isinstance(value, Budget) for value in vars(edit).values()):
        check_budget(edit, graph, build(edited))


def before_precision(edits: Sequence[Edit]) -> int:
    """How many edits come before the refit: not those at the end that change precision alone."""
    count = len(edits)
    while count and edits[count - 1].stage == PRECISION:
        count -= 1
    return count or len(edits)
