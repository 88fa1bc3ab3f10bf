"""The labels of a whole graph, resolved to channels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from saikei.channels.biases import is_bias_of_several_axes
from saikei.channels.groups import ChannelGroup, find_groups
from saikei.graph import Graph, TensorRef, sized
from saikei.rules import CallView, Flow, Labels
from saikei.rules.base import Shape
from saikei.rules.labels import Vector, labelled

BoolMask: TypeAlias = NDArray[np.bool_]


@dataclass(frozen=True)
class ChannelMap:
    """The labels of a whole graph, resolved to channels.

    Args:
        graph: the graph.
        flows: what each call's rule said.
        channel_of: for each label, its channel's number.
        weights: labels of each axis of each weight, by variable key.
        produced: `(variable key, axis)` of the weight axes whose channels their layer makes.
        blocks: `(first label, size, layer)` of each run of labels that a layer made.
        reasons: for each pinned channel, why.
        unknown: layers whose kind has no rule, with the reason.
    """

    graph: Graph
    flows: tuple[Flow, ...] = field(repr=False)
    channel_of: Vector = field(repr=False)
    weights: Mapping[int, Labels] = field(repr=False)
    produced: frozenset[tuple[int, int]] = field(repr=False)
    blocks: tuple[tuple[int, int, str], ...] = field(repr=False)
    reasons: Mapping[int, str] = field(repr=False)
    unknown: Mapping[str, str]

    @property
    def count(self) -> int:
        """How many channels the graph has."""
        return int(self.channel_of.max(initial=-1)) + 1

    @cached_property
    def groups(self) -> tuple[ChannelGroup, ...]:
        """The channel groups, in the order in which layers make them."""
        return find_groups(self)

    @cached_property
    def full(self) -> ChannelMap:
        """The same channels in a graph with full shapes, for counting: see `saikei.graph.sized`."""
        graph = sized(self.graph).graph
        return self if graph is self.graph else replace(self, graph=graph)

    @property
    def batch(self) -> int:
        """How many samples first axes are of that have a size in `full`."""
        return sized(self.graph).batch

    @cached_property
    def pairs(self) -> tuple[tuple[str, Vector], ...]:
        """Axes of biases of which at least two indices have to stay; see `biases`."""
        return tuple(
            (f"{operation}/{name}", channels)
            for operation, name, _, _, channels in self.weight_axes()
            if is_bias_of_several_axes(name, self.graph.operations[operation].weights[name].shape)
            and len(channels) > 1
        )

    def weight_axes(self) -> Iterator[tuple[str, str, int, int, Vector]]:
        """The axes of weights that have channels, tied variables once.

        Yields:
            The operation, the weight's name, its variable's key, the axis and its channels.
        """
        seen: set[int] = set()
        for operation in self.graph.operations.values():
            for name, weight in operation.weights.items():
                if weight.key in seen:
                    continue
                seen.add(weight.key)
                for axis, vector in labelled(self.weights.get(weight.key, ())):
                    yield operation.name, name, weight.key, axis, self.channel_of[vector]

    def kept(self, vector: Vector, keep: BoolMask) -> BoolMask:
        """Which indices of an axis stay when the channels in `keep` do."""
        return np.asarray(keep[self.channel_of[vector]])

    def view(self, index: int, keep: BoolMask | None = None) -> CallView:
        """The call as rules see it, at full size or with only the kept channels."""
        call = self.graph.calls[index]
        operation = self.graph.operations[call.operation]
        refs = call.inputs()
        weights = {
            name: self._size(weight.shape, self.weights.get(weight.key), keep)
            for name, weight in operation.weights.items()
        }
        if operation.quantised is not None:
            floats = operation.quantised.weights or {}
            weights |= {name: weight.shape for name, weight in floats.items()}
        leaves = call.leaves()
        return CallView(
            operation=operation.name,
            kind=operation.kind,
            config=operation.config or {},
            weights=weights,
            inputs=tuple(self.shape(ref, keep) for ref in refs),
            outputs=tuple(self.shape(TensorRef(index, i), keep) for i in range(len(call.outputs))),
            arguments=tuple(None if isinstance(a, TensorRef) else a for a in leaves),
            tensor_positions=tuple(p for p, a in enumerate(leaves) if isinstance(a, TensorRef)),
            slots=call.slots(),
        )

    def shape(self, ref: TensorRef, keep: BoolMask | None = None) -> Shape:
        """A tensor's shape, at full size or with only the kept channels."""
        labels = self.flows[ref.call].outputs[ref.output] if keep is not None else None
        return self._size(self.graph.spec(ref).shape, labels, keep)

    def _size(self, shape: Shape, labels: Labels | None, keep: BoolMask | None) -> Shape:
        if keep is None or labels is None:
            return shape
        return tuple(
            size if vector is None else int(self.kept(vector, keep).sum())
            for size, vector in zip(shape, labels, strict=True)
        )
