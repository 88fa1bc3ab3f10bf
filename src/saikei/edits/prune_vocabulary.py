"""`PruneVocabulary`: leave out the tokens that a corpus does not use."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import keras
import numpy as np
from keras import tree

from saikei.batches import Array, as_numpy
from saikei.data import gathered
from saikei.edits.base import Edit
from saikei.edits.cut import with_setting
from saikei.errors import EditError
from saikei.graph import Graph, InputShape, Operation, TensorRef, read
from saikei.graph.compiling import uncompiled
from saikei.graph.rewrite import replace_operations
from saikei.limits import check_whole

_TABLES = ("Embedding", "ReversibleEmbedding")
# What may stand between a head and the output of the model.
_BEHIND_HEADS = ("Activation", "Softmax")


@dataclass(frozen=True)
class PruneVocabulary(Edit):
    """Leave out the tokens that a corpus does not use, of the embedding and of the head.

    The head is the embedding itself in reverse, or a Dense layer with a unit for each token that
    gives the model's output. The logits of the tokens that stay are exactly the same; probabilities
    rise by as much as the others had. Tokens get new numbers in the order of the old ones: token
    `tokens(model, data)[i]` becomes i, and texts have to be numbered so before they are given to
    the new model.

    Args:
        keep: Numbers of tokens that stay in any case, such as those that begin, end and pad texts;
            without data they are the only ones that stay. Token 0 stays where it is masked.
        least: How often a token has to occur in the data to stay.
        layer: The name of the embedding; `None` for the only one that reads an input.

    Raises:
        EditError: When an argument is out of range.

    Example:
        >>> edit = PruneVocabulary(keep=(0, 1, 2))
        >>> PruneVocabulary.from_dict(edit.to_dict()) == edit
        True
    """

    exact: ClassVar[bool] = False
    keep: tuple[int, ...] = ()
    least: int = 1
    layer: str | None = None

    def check_arguments(self) -> None:
        """Refuse arguments that are out of range."""
        for token in self.keep:
            check_whole("PruneVocabulary: keep", token, 0, kind=EditError)
        check_whole("PruneVocabulary: least", self.least, kind=EditError)

    def read(
        self, model: keras.Model, data: Any = None, input_shape: InputShape | None = None
    ) -> Graph:
        """Read the model; a task whose tokenizer would go on with the old numbers is refused."""
        if getattr(getattr(model, "preprocessor", None), "tokenizer", None) is not None:
            raise EditError(
                f"The tokenizer of '{model.name}' would go on with the old numbers of tokens: make "
                "the task with preprocessor=None (its class stays), and number tokens as "
                "PruneVocabulary.tokens gives them."
            )
        return super().read(model, data, input_shape)

    def apply(self, graph: Graph, data: Any = None) -> Graph:
        """The graph with the tokens that stay."""
        table = self._table(graph)
        kept = self._kept(graph, table, data)
        rows = _rows(table)
        if len(kept) == rows:
            raise EditError(
                f"PruneVocabulary would change nothing: all {rows} tokens of layer '{table.name}' "
                "stay."
            )
        heads = _heads(graph, rows)
        chains = {one.name: [_cut(one, kept)] for one in (table, *heads)}
        changed = replace_operations(graph, chains)
        before, after = ([g.spec(ref) for ref in g.output_refs()] for g in (graph, changed))
        return changed if before == after else uncompiled(changed)

    def tokens(self, model: keras.Model, data: Any = None) -> Array:
        """The old numbers of the tokens that stay, in the order of their new numbers.

        Args:
            model: The model that is to be edited.
            data: As the edit is given it.

        Returns:
            Whole numbers `(tokens that stay,)`, which rise.

        Raises:
            EditError: As the edit does.
        """
        graph = read(model)
        return self._kept(graph, self._table(graph), data)

    def _table(self, graph: Graph) -> Operation:
        inputs = set(graph.input_refs())
        found = {
            call.operation
            for call in graph.calls
            if graph.operations[call.operation].kind in _TABLES
            and (call.operation == self.layer or (not self.layer and set(call.inputs()) & inputs))
        }
        if len(found) != 1:
            named = f"layer='{self.layer}' is no embedding" if self.layer else ""
            several = f"{len(found)} embeddings read an input of model '{graph.name}'"
            raise EditError(
                f"PruneVocabulary: {named or several}: name the one whose tokens go, layer=…."
            )
        operation = graph.operations[found.pop()]
        if operation.quantised is not None:
            raise EditError(f"Layer '{operation.name}' is quantised: apply Dequantize() first.")
        return operation

    def _kept(self, graph: Graph, table: Operation, data: Any) -> Array:
        rows = _rows(table)
        counts = np.zeros(rows, dtype=np.int64)
        if data is not None:
            for tokens in self._occurring(graph, table, data):
                if tokens.size and not 0 <= tokens.min() <= tokens.max() < rows:
                    raise EditError(
                        f"The data has tokens from {tokens.min()} to {tokens.max()}, and layer "
                        f"'{table.name}' has {rows}: give the data that the model takes."
                    )
                counts += np.bincount(tokens.reshape(-1).astype(np.int64), minlength=rows)
        stays = counts >= self.least
        if self.keep and max(self.keep) >= rows:
            raise EditError(
                f"PruneVocabulary keeps token {max(self.keep)}, and layer '{table.name}' has "
                f"{rows} tokens."
            )
        stays[list(self.keep)] = True
        if not stays.any():
            raise EditError("PruneVocabulary keeps no token: give data, or the tokens to keep.")
        if (table.config or {}).get("mask_zero"):
            stays[0] = True
        return np.flatnonzero(stays)

    def _occurring(self, graph: Graph, table: Operation, data: Any) -> list[Array]:
        """The tokens in the data: the embedding's input, and labels where there is a head."""
        x, *rest = gathered(data, "data", labels=False).parts
        leaves = [as_numpy(leaf) for leaf in tree.flatten(x)]
        read_by = {
            ref
            for call in graph.calls
            if call.operation == table.name
            for ref in call.inputs()
            if ref in graph.input_refs()
        }
        found = [leaves[graph.input_refs().index(ref)] for ref in read_by]
        if not found:
            raise EditError(
                f"Layer '{table.name}' reads no input of the model, so its tokens cannot be "
                "counted: give the tokens to keep, without data."
            )
        reversible = table.kind == "ReversibleEmbedding"
        if rest and rest[0] is not None and (reversible or _heads(graph, _rows(table))):
            labels = [as_numpy(leaf) for leaf in tree.flatten(rest[0])]
            found += [leaf for leaf in labels if leaf.dtype.kind in "iu"]
        return [leaf.astype(np.int64) for leaf in found]


def _rows(table: Operation) -> int:
    return int(table.weights["embeddings"].shape[0])


def _heads(graph: Graph, rows: int) -> list[Operation]:
    """Dense layers with a unit for each token that give an output of the model."""
    found: dict[str, Operation] = {}
    for output in graph.output_refs():
        ref: TensorRef = output
        while graph.operations[graph.calls[ref.call].operation].kind in _BEHIND_HEADS:
            ref = graph.calls[ref.call].inputs()[0]
        operation = graph.operations[graph.calls[ref.call].operation]
        if operation.kind == "Dense" and operation.weights["kernel"].shape[1] == rows:
            found[operation.name] = operation
    return list(found.values())


def _cut(operation: Operation, kept: Array) -> Operation:
    """A table or head with the rows or units of the tokens that stay."""
    axes = {"embeddings": 0, "reverse_embeddings": 1, "kernel": 1, "bias": 0}
    weights = {
        name: weight.with_array(np.take(weight.numpy(), kept, axis=axes[name]))
        for name, weight in operation.weights.items()
    }
    entry = "units" if operation.kind == "Dense" else "input_dim"
    config = with_setting(operation.config or {}, entry, len(kept))
    return replace(operation, weights=weights, config=config)
