"""The labels of a whole graph, resolved to channels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from saikei.channels.biases import is_bias_of_several_axes
from saikei.channels.groups import ChannelGroup, Member
from saikei.graph import Graph, TensorRef, sized
from saikei.rules import CallView, Flow, Labels
from saikei.rules.base import Shape
from saikei.rules.labels import Vector, labelled

BoolMask: TypeAlias = NDArray[np.bool_]


@dataclass(frozen=True)
class ChannelMap:
    """The labels of a whole graph, resolved to channels.

    Args:
        graph: The graph whose channels these are.
        flows: The flow of labels through each call, by its rule.
        channel_of: For each label, its channel's number.
        weights: Labels of each axis of each weight, by variable key.
        produced: `(variable key, axis)` of the weight axes whose channels their layer makes.
        blocks: `(first label, size, layer)` of each run of labels that a layer made.
        reasons: For each pinned channel, why.
        unknown: Layers whose kind has no rule, with the reason.
    """

    graph: Graph
    flows: tuple[Flow, ...] = field(repr=False)
    channel_of: Vector = field(repr=False)
    weights: Mapping[int, Labels] = field(repr=False)
    produced: frozenset[tuple[int, int]] = field(repr=False)
    blocks: tuple[tuple[int, int, str], ...] = field(repr=False)
    reasons: Mapping[int, str] = field(repr=False)
    unknown: Mapping[str, str]

    @classmethod
    def of_whole(cls, graph: Graph) -> ChannelMap:
        """A graph without its channels: enough to count what all of it costs.

        Args:
            graph: The graph.
        """
        return cls(graph, (), np.empty(0, np.int64), {}, frozenset(), (), {}, {})

    @property
    def count(self) -> int:
        """How many channels the graph has."""
        return int(self.channel_of.max(initial=-1)) + 1

    @cached_property
    def groups(self) -> tuple[ChannelGroup, ...]:
        """The channel groups, in the order in which layers make them."""
        return _find_groups(self)

    @cached_property
    def full(self) -> ChannelMap:
        """These channels in a graph with full shapes, for counting; see `saikei.graph.sized`."""
        graph = sized(self.graph).graph
        return self if graph is self.graph else replace(self, graph=graph)

    @property
    def batch(self) -> int:
        """The number of samples in first axes that have a size in `full`."""
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
            size if vector is None else int(np.count_nonzero(self.kept(vector, keep)))
            for size, vector in zip(shape, labels, strict=True)
        )


def _find_groups(channel_map: ChannelMap) -> tuple[ChannelGroup, ...]:
    """The groups of a graph: blocks of labels that share a channel are in one group."""
    blocks = channel_map.blocks
    if not blocks:
        return ()
    count = channel_map.count
    sizes = np.array([size for _, size, _ in blocks])
    block_of = np.repeat(np.arange(len(blocks)), sizes)
    total = len(blocks) + count
    edges = (block_of, len(blocks) + channel_map.channel_of)
    adjacency = coo_matrix((np.ones(len(block_of), np.int8), edges), shape=(total, total))
    _, component = connected_components(adjacency, directed=False)
    members = _members(channel_map, component[len(blocks) :])
    found: dict[int, list[int]] = {}
    for block in range(len(blocks)):
        found.setdefault(int(component[block]), []).append(block)
    groups = [
        _group(channel_map, [blocks[b] for b in own], tuple(members.get(key, ())))
        for key, own in found.items()
    ]
    pairs: dict[int, list[tuple[str, Vector]]] = {}
    for name, channels in channel_map.pairs:
        pairs.setdefault(int(component[len(blocks) + channels[0]]), []).append((name, channels))
    keys = list(found)
    return tuple(
        replace(group, pairs=tuple(pairs.get(key, ())))
        for key, group in zip(keys, groups, strict=True)
        if group.members
    )


def _group(
    channel_map: ChannelMap, blocks: list[tuple[int, int, str]], members: tuple[Member, ...]
) -> ChannelGroup:
    by_block: dict[str, Vector] = {}
    for start, size, owner in blocks:
        channels = np.unique(channel_map.channel_of[start : start + size])
        name = owner if owner not in by_block else f"{owner}#{start}"
        by_block[name] = channels
    joined = np.concatenate(
        [channel_map.channel_of[start : start + size] for start, size, _ in blocks]
    )
    _, first = np.unique(joined, return_index=True)
    channels = joined[np.sort(first)]
    free = np.array([int(channel) not in channel_map.reasons for channel in channels], dtype=bool)
    pinned = None if free.any() else channel_map.reasons[int(channels[0])]
    return ChannelGroup(next(iter(by_block)), channels, by_block, members, pinned, free)


def _members(channel_map: ChannelMap, group_of: Vector) -> dict[int, list[Member]]:
    """The weight axes of each group, tied variables once."""
    members: dict[int, list[Member]] = {}
    for operation, name, key, axis, channels in channel_map.weight_axes():
        member = Member(operation, name, axis, channels, (key, axis) in channel_map.produced)
        for group in np.unique(group_of[channels]):
            members.setdefault(int(group), []).append(member)
    return members
