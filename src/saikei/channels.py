"""From labels to channel groups: which channels of which layers can only be cut together.

Labels are propagated once through the graph; rules say which labels are equal and which are
pinned. Equal labels are one *channel*. Layers whose channels are tied form one *group*.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import keras
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from saikei.graph import Graph, TensorRef, read
from saikei.rules import CallView, Flow, Labels, LabelSource, Pin, Tie, find_rule
from saikei.rules.base import Shape, pinned_flow
from saikei.rules.labels import Vector, labelled, pin_all

BoolMask = NDArray[np.bool_]


@dataclass(frozen=True)
class Member:
    """One axis of one weight that carries a group's channels.

    Args:
        operation: the layer's name.
        weight: the weight's name in the layer.
        axis: which axis of the weight.
        channels: for each index of the axis, its channel's number.
        produces: whether the layer makes these channels (a kernel's output axis, a bias, a
            scale) rather than reads them.
    """

    operation: str
    weight: str
    axis: int
    channels: Vector = field(repr=False)
    produces: bool


@dataclass(frozen=True)
class ChannelGroup:
    """Channels that layers share.

    Args:
        name: the layer that makes the channels first.
        channels: their numbers, in that layer's order.
        blocks: for each layer that makes some of them, which; at least one of each block has
            to stay.
        members: the weight axes that carry them.
        pinned: why none of them can be cut; `None` where some can.
        free: which of the channels can be cut.
    """

    name: str
    channels: Vector = field(repr=False)
    blocks: Mapping[str, Vector] = field(repr=False)
    members: tuple[Member, ...] = field(repr=False)
    pinned: str | None
    free: BoolMask = field(repr=False)

    @property
    def size(self) -> int:
        """How many channels the group has."""
        return len(self.channels)

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers that carry the channels, in the order of the graph."""
        return tuple(dict.fromkeys(member.operation for member in self.members))

    @property
    def layers_made(self) -> tuple[str, ...]:
        """The layers that make some of the channels."""
        return tuple(dict.fromkeys(m.operation for m in self.members if m.produces))


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
        return _groups(self)

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


class ChannelGroups(tuple[ChannelGroup, ...]):
    """The channel groups of a model; printed, they are a table."""

    __slots__ = ()

    def __str__(self) -> str:
        rows = [("group", "channels", "can be cut", "layers")]
        for group in self:
            free = "no" if group.pinned else f"{int(group.free.sum())}"
            layers = ", ".join(group.layers)
            rows.append((group.name, str(group.size), free, layers + _because(group.pinned)))
        widths = [max(len(row[i]) for row in rows) for i in range(3)]
        return "\n".join(
            "  ".join([*(cell.ljust(w) for cell, w in zip(row[:3], widths, strict=True)), row[3]])
            for row in rows
        )


def _because(reason: str | None) -> str:
    return "" if reason is None else f" [pinned: {reason}]"


def channel_groups(model: keras.Model) -> ChannelGroups:
    """Which channels of which layers can only be cut together.

    Args:
        model: a built Functional or Sequential model.

    Returns:
        One `ChannelGroup` for each set of layers that share channels; `str()` of it is a table.

    Raises:
        ModelError: when the model cannot be read.
    """
    return ChannelGroups(map_channels(read(model)).groups)


def map_channels(graph: Graph) -> ChannelMap:
    """Propagate labels through a graph and resolve them to channels. No model is run."""
    return _Propagation(graph).resolve()


class _Propagation:
    """One walk over the calls of a graph."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.source = LabelSource()
        self.flows: list[Flow] = []
        self.ties: list[Tie] = []
        self.pins: list[Pin] = []
        self.weights: dict[int, Labels] = {}
        self.produced: set[tuple[int, int]] = set()
        self.sizes: dict[tuple[str, str], object] = {}
        self.unknown: dict[str, str] = {}

    def resolve(self) -> ChannelMap:
        draft = ChannelMap(self.graph, (), np.empty(0, np.int64), {}, frozenset(), (), {}, {})
        for index in range(len(self.graph.calls)):
            flow = self._flow(draft.view(index))
            self.flows.append(flow)
            self.ties.extend(flow.ties)
            self.pins.extend(flow.pins)
            self._note_weights(index, flow)
            self._note_sizes(index, flow)
        outputs = tuple(self.flows[r.call].outputs[r.output] for r in self.graph.output_refs())
        # First, so that it is the reason that is reported.
        self.pins[:0] = pin_all(outputs, "a model output")
        channel_of = _components(self.source.count, self.ties)
        return ChannelMap(
            graph=self.graph,
            flows=tuple(self.flows),
            channel_of=channel_of,
            weights=self.weights,
            produced=frozenset(self.produced),
            blocks=tuple(self.source.blocks),
            reasons=self._reasons(channel_of),
            unknown=self.unknown,
        )

    def _flow(self, view: CallView) -> Flow:
        index = len(self.flows)
        call = self.graph.calls[index]
        inputs = tuple(self.flows[r.call].outputs[r.output] for r in call.inputs())
        if view.kind == "InputLayer":
            return pinned_flow(view, inputs, "a model input")
        rule = find_rule(view.kind)
        if rule is None:
            reason = f"'{view.operation}' is of kind {view.kind}, for which there is no rule"
            self.unknown[view.operation] = reason
            return pinned_flow(view, inputs, reason)
        flow = rule.flow(view, inputs, self.source)
        _check_flow(view, flow)
        strange = sorted(set(view.weights) - set(flow.weights)) if flow.weights else []
        if strange or (view.weights and not flow.weights):
            names = ", ".join(f"'{name}'" for name in strange or view.weights)
            reason = f"'{view.operation}' has weights that its rule does not cut ({names})"
            self.unknown.setdefault(view.operation, reason)
            self.pins.extend(pin_all(flow.outputs, reason))
            return pinned_flow(view, inputs, reason)
        return flow

    def _note_weights(self, index: int, flow: Flow) -> None:
        operation = self.graph.operations[self.graph.calls[index].operation]
        made = [vector for labels in flow.outputs for _, vector in labelled(labels)]
        for name, weight in operation.weights.items():
            labels = flow.weights.get(name, (None,) * len(weight.shape))
            for axis, vector in labelled(labels):
                if any(np.isin(vector[:1], out).all() for out in made):
                    self.produced.add((weight.key, axis))
            known = self.weights.get(weight.key)
            if known is None:
                self.weights[weight.key] = labels
            else:
                reason = f"'{operation.name}' is shared, and its calls disagree"
                self.weights[weight.key] = tuple(
                    self._same(a, b, reason) for a, b in zip(known, labels, strict=True)
                )

    def _note_sizes(self, index: int, flow: Flow) -> None:
        """A shared layer has one config, so its calls must agree on what is cut."""
        name = self.graph.calls[index].operation
        for key, value in flow.sizes.items():
            known = self.sizes.setdefault((name, key), value)
            if known is value:
                continue
            reason = f"'{name}' is shared, and its calls disagree on '{key}'"
            for first, second in zip(_entries(known), _entries(value), strict=True):
                self._same(_vector(first), _vector(second), reason)

    def _same(self, first: Vector | None, second: Vector | None, reason: str) -> Vector | None:
        if first is None or second is None or len(first) != len(second):
            found = [vector for vector in (first, second) if vector is not None]
            self.pins.extend(Pin(vector, reason) for vector in found)
            return None
        self.ties.append(Tie(first, second))
        return first

    def _reasons(self, channel_of: Vector) -> dict[int, str]:
        reasons: dict[int, str] = {}
        for pin in self.pins:
            for channel in np.unique(channel_of[pin.labels]):
                reasons.setdefault(int(channel), pin.reason)
        return reasons


def _entries(value: object) -> tuple[object, ...]:
    return value if isinstance(value, tuple) else (value,)


def _vector(value: object) -> Vector | None:
    return value if isinstance(value, np.ndarray) else None


def _check_flow(view: CallView, flow: Flow) -> None:
    """A rule that is wrong about sizes must fail here, not cut the wrong channel."""
    pairs = [
        *zip(view.outputs, flow.outputs, strict=True),
        *((view.weights[name], labels) for name, labels in flow.weights.items()),
    ]
    for shape, labels in pairs:
        sizes = [None if vector is None else len(vector) for vector in labels]
        wrong = [s is not None and s != size for size, s in zip(shape, sizes, strict=True)]
        if any(wrong):
            raise AssertionError(
                f"The rule for {view.kind} gives '{view.operation}' labels of sizes {sizes} "
                f"for a shape of {shape}."
            )


def _components(count: int, ties: list[Tie]) -> Vector:
    if not ties or not count:
        return np.arange(count, dtype=np.int64)
    rows = np.concatenate([tie.first for tie in ties])
    columns = np.concatenate([tie.second for tie in ties])
    graph = coo_matrix((np.ones(len(rows), np.int8), (rows, columns)), shape=(count, count))
    _, labels = connected_components(graph, directed=False)
    return np.asarray(labels, dtype=np.int64)


def _groups(channel_map: ChannelMap) -> tuple[ChannelGroup, ...]:
    """Blocks of labels that share a channel belong to one group."""
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
    return tuple(group for group in groups if group.members)


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
    seen: set[int] = set()
    for operation in channel_map.graph.operations.values():
        for name, weight in operation.weights.items():
            if weight.key in seen:
                continue
            seen.add(weight.key)
            for axis, vector in labelled(channel_map.weights.get(weight.key, ())):
                channels = channel_map.channel_of[vector]
                produces = (weight.key, axis) in channel_map.produced
                member = Member(operation.name, name, axis, channels, produces)
                for key in np.unique(group_of[channels]):
                    members.setdefault(int(key), []).append(member)
    return members
