"""How sparse the kernels of chosen layers should be, and the zeros that make them so."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from saikei.errors import EditError
from saikei.graph import Graph, Operation, Weight
from saikei.graph.layer_names import check_layer_names
from saikei.rules import why_whole
from saikei.sparsity.axes import input_axes
from saikei.sparsity.masks import Array, Mask, Pattern, group_zeros, lamp, magnitude, smallest
from saikei.sparsity.zeros import is_kernel


@dataclass(frozen=True)
class KernelZeros:
    """The zeros that one kernel should have.

    Args:
        layer: The layer of the kernel; the first of several that share it.
        weight: The name of the weight in the layer.
        key: The identity of the variable.
        zeros: For each weight, whether it should be zero; of the kernel's shape.
        note: The part that stays dense, and why; empty where there is none.
    """

    layer: str
    weight: str
    key: int
    zeros: Mask
    note: str = ""


@dataclass(frozen=True)
class SparsityTarget:
    """A sparsity for the kernels of some layers.

    Args:
        sparsity: The share of zeros, from 0 to below 1.
        pattern: How many of each few weights are zero; `None` for zeros anywhere.
        layers: The names of the layers; all that have kernels when empty.
        exclude: The names of layers that stay dense.
        scope: `"layer"` gives every kernel the same share, `"global"` ranks all together.
    """

    sparsity: float
    pattern: Pattern | None
    layers: tuple[str, ...]
    exclude: tuple[str, ...]
    scope: str

    def zeros(self, graph: Graph, progress: float = 1.0) -> list[KernelZeros]:
        """The zeros of every kernel.

        Args:
            graph: The graph with the kernels, which are not changed.
            progress: How far towards the sparsity, from 0 to 1, as a share of the zeros (of
                each group, where there is a pattern).

        Raises:
            EditError: When a layer is unknown or has no kernel.
        """
        found = list(self._kernels(graph))
        if self.pattern is not None:
            return [_grouped(self.pattern, *kernel, progress) for kernel in found]
        share = self.sparsity * progress
        arrays = [weight.numpy() for _, _, weight in found]
        masks = (
            _anywhere_global(arrays, share)
            if self.scope == "global"
            else [smallest(magnitude(array), _count(share, array.size)) for array in arrays]
        )
        return [
            KernelZeros(operation.name, name, weight.key, mask)
            for (operation, name, weight), mask in zip(found, masks, strict=True)
        ]

    def _kernels(self, graph: Graph) -> Iterator[tuple[Operation, str, Weight]]:
        check_layer_names(self.layers, graph, "Sparsify(layers=…)")
        check_layer_names(self.exclude, graph, "Sparsify(exclude=…)")
        for name in self.layers:
            _check_has_kernel(graph.operations[name])
        seen: set[int] = set()
        chosen = set(self.layers or graph.operations) - set(self.exclude)
        for operation in graph.operations.values():
            if operation.name not in chosen or operation.quantised is not None:
                continue
            for name, weight in operation.weights.items():
                if is_kernel(name, weight.shape) and weight.key not in seen:
                    seen.add(weight.key)
                    yield operation, name, weight


def _check_has_kernel(operation: Operation) -> None:
    if operation.quantised is not None:
        raise EditError(f"Sparsify: {why_whole(operation.name, operation.quantised.mode)}.")
    if not any(is_kernel(key, weight.shape) for key, weight in operation.weights.items()):
        weights = ", ".join(operation.weights) or "none"
        raise EditError(
            f"Layer '{operation.name}' ({operation.kind}) has no kernel to make sparse "
            f"(weights: {weights}): leave it out of Sparsify."
        )


def _count(share: float, size: int) -> int:
    """Zeros of a kernel; one weight stays, for a layer must not end as a constant."""
    return min(round(share * size), size - 1)


def _anywhere_global(arrays: Sequence[Array], share: float) -> list[Mask]:
    if not arrays:
        return []
    scores = [lamp(array) for array in arrays]
    total = sum(array.size for array in arrays)
    chosen = smallest(np.concatenate([score.ravel() for score in scores]), round(share * total))
    ends = np.cumsum([array.size for array in arrays])[:-1]
    parts = np.split(chosen, ends)
    return [part.reshape(a.shape) for part, a in zip(parts, arrays, strict=True)]


def _grouped(
    pattern: Pattern, operation: Operation, name: str, weight: Weight, progress: float
) -> KernelZeros:
    axes = input_axes(operation, name, len(weight.shape))
    dense = np.zeros(weight.shape, dtype=bool)
    if axes is None:
        note = f"dense: no axis of its {name} is known to be its input"
        return KernelZeros(operation.name, name, weight.key, dense, note)
    length = int(np.prod([weight.shape[axis] for axis in axes]))
    if length < pattern.of:
        note = f"dense: its {length} inputs are no group of {pattern.of}"
        return KernelZeros(operation.name, name, weight.key, dense, note)
    rest = length % pattern.of
    note = f"the last {rest} of {length} inputs are dense: no whole group" if rest else ""
    zeros = round(progress * (pattern.of - pattern.kept))
    mask = group_zeros(weight.numpy(), axes, pattern.of, zeros)
    return KernelZeros(operation.name, name, weight.key, mask, note)


def with_zeros(graph: Graph, kernels: Sequence[KernelZeros]) -> Graph:
    """The graph with the zeros in its kernels, those that layers share in all of them."""
    masks: Mapping[int, Any] = {kernel.key: kernel.zeros for kernel in kernels}
    changed = {}
    for name, operation in graph.operations.items():
        weights = dict(operation.weights)
        for key, weight in operation.weights.items():
            if weight.key in masks:
                array = weight.numpy().copy()
                array[masks[weight.key]] = 0
                weights[key] = weight.with_array(array)
        changed[name] = replace(operation, weights=weights)
    return graph.with_operations(changed)
