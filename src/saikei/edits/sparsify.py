"""`Sparsify`: set the smallest weights of kernels to zero."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import keras
import numpy as np

from saikei.columns import in_columns
from saikei.edits.base import Edit
from saikei.errors import EditError
from saikei.graph import Graph
from saikei.rules import why_whole
from saikei.sparsity import KernelZeros, Pattern, SparsityTarget
from saikei.sparsity.target import with_zeros


@dataclass(frozen=True)
class Sparsify(Edit):
    """Set the smallest weights of kernels to zero; biases, scales and tables stay.

    The model stays as large, and on a runtime for dense matrices it is no faster: the zeros are
    stored and multiplied like any other number. They pay where files are compressed, and on
    hardware that skips them: 2:4 on recent GPUs.

    Training afterwards with `fit` or `distill` keeps the zeros. Handed to them as `sparsify=…`,
    the zeros come gradually, which costs less accuracy (Zhu and Gupta, "To prune, or not to
    prune", 2017).

    Args:
        sparsity: Share of zeros, from 0 to below 1; `None` is that of the pattern, and 0.5 where
            the pattern is `"unstructured"`.
        pattern: `"unstructured"` puts zeros anywhere. `"n:m"`, as in `"2:4"`, leaves n of every m
            weights along the input axis; inputs past the last whole group stay dense, and so do
            kernels without such an axis (depthwise ones).
        layers: The names of the layers to change; all that have kernels when empty.
        exclude: The names of layers that stay as they are.
        scope: `"layer"` gives every kernel this sparsity; `"global"` ranks the weights of all
            kernels together, by their squares relative to the sum of those that are not smaller in
            the same kernel (Lee et al., 2021). Other than for `PruneChannels`, `"layer"` is the
            default: patterns hold in every layer anyway, and a zero saves as much in one layer as
            in another, so there is no cost to weigh.

    Raises:
        EditError: When an argument is out of range.

    Example:
        >>> edit = Sparsify(0.8, exclude=("classes",))
        >>> Sparsify.from_dict(edit.to_dict()) == edit
        True
    """

    exact: ClassVar[bool] = False
    sparsity: float | None = None
    pattern: str = "unstructured"
    layers: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    scope: Literal["layer", "global"] = "layer"

    def check_arguments(self) -> None:
        """Refuse arguments that are out of range."""
        _check_arguments(self)

    @property
    def target(self) -> SparsityTarget:
        """What is to be sparse, for training that gets there gradually."""
        pattern = Pattern.parse(self.pattern)
        sparsity = self.sparsity if self.sparsity is not None else 0.5
        share = sparsity if pattern is None else pattern.sparsity
        return SparsityTarget(share, pattern, self.layers, self.exclude, self.scope)

    def plan(self, model: keras.Model, data: Any = None) -> SparsityPlan:
        """Which kernels would have how many zeros.

        Args:
            model: A built model.
            data: Not used; all edits' `plan` take it.
        """
        return SparsityPlan(tuple(self._zeros(self.read(model))))

    def apply(self, graph: Graph, data: Any = None) -> Graph:
        """The graph with the zeros; `data` is not used."""
        return with_zeros(graph, self._zeros(graph))

    def _zeros(self, graph: Graph) -> list[KernelZeros]:
        kernels = self.target.zeros(graph)
        if not kernels:
            whole = [
                why_whole(operation.name, operation.quantised.mode)
                for operation in graph.operations.values()
                if operation.quantised is not None
            ]
            reasons = "; ".join(whole) or "no layer that is chosen has a kernel"
            raise EditError(f"Sparsify would change nothing: {reasons}.")
        weights = {w.key: w for op in graph.operations.values() for w in op.weights.values()}
        if not any(weights[k.key].numpy()[k.zeros].any() for k in kernels):
            notes = "; ".join(f"{k.layer} is {k.note}" for k in kernels if k.note)
            raise EditError(
                f"Sparsify would change nothing: {notes or 'the kernels have these zeros already'}."
            )
        return kernels


@dataclass(frozen=True)
class SparsityPlan:
    """The zeros of every kernel; printed, it is a table.

    Args:
        kernels: The kernels that get zeros, in the graph's order.
    """

    kernels: tuple[KernelZeros, ...]

    @property
    def sparsity(self) -> float:
        """Share of zeros in all kernels together."""
        return sum(int(k.zeros.sum()) for k in self.kernels) / sum(
            k.zeros.size for k in self.kernels
        )

    def __str__(self) -> str:
        rows = [("layer", "kernel", "weights", "zeros", "")]
        rows += [
            (k.layer, k.weight, f"{k.zeros.size:,}", f"{np.mean(k.zeros):.1%}", k.note)
            for k in self.kernels
        ]
        return f"{in_columns(rows)}\n{self.sparsity:.1%} of all these weights are zero"


def _check_arguments(edit: Sparsify) -> None:
    pattern = Pattern.parse(edit.pattern)
    sparsity: Any = edit.sparsity
    if edit.scope not in ("layer", "global"):
        raise EditError(f"Unknown scope '{edit.scope}': use 'layer' or 'global'.")
    if sparsity is None:
        return
    if not 0 <= sparsity < 1:
        raise EditError(
            f"Sparsify(sparsity={sparsity}): a share of zeros has to be at least 0 and below 1."
        )
    if pattern is not None and abs(sparsity - pattern.sparsity) > 1e-9:
        raise EditError(
            f"Sparsify(sparsity={sparsity}, pattern='{edit.pattern}'): the pattern alone makes "
            f"a share of {pattern.sparsity:.4g} zero; leave sparsity out."
        )
