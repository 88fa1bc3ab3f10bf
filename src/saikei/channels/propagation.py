"""Propagate labels once through a graph, and resolve them to channels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from saikei.channels.biases import REASON, only_wide_axis
from saikei.channels.channel_map import ChannelMap
from saikei.graph import Graph
from saikei.graph.flat import SPECTRAL_WEIGHT
from saikei.graph.state import fits_no_cut
from saikei.rules import CallView, Flow, Labels, LabelSource, Pin, Tie, find_rule, why_whole
from saikei.rules.base import pinned_flow
from saikei.rules.labels import Vector, labelled, pin_all


def map_channels(graph: Graph) -> ChannelMap:
    """Propagate labels through a graph and resolve them to channels. No model is run.

    Where a reshape lets labels stay on one of several axes only, it is the last of them, or the
    axis before it where more weights can be cut then: whole heads, since rotary positions need
    every channel of a head; heads with the keys and values that they share.
    """
    source = LabelSource()
    found = _Propagation(graph, source).resolve()
    if not source.chosen:
        return found
    other = _Propagation(graph, LabelSource(outer=True)).resolve()
    return other if _cuttable_axes(other) > _cuttable_axes(found) else found


def _cuttable_axes(channel_map: ChannelMap) -> int:
    """How many axes of weights carry a channel that can be cut."""
    free = np.ones(channel_map.count, dtype=bool)
    free[list(channel_map.reasons)] = False
    return sum(
        bool(channel_map.kept(vector, free).any())
        for labels in channel_map.weights.values()
        for _, vector in labelled(labels)
    )


class _Propagation:
    """One pass over the calls of a graph."""

    def __init__(self, graph: Graph, source: LabelSource) -> None:
        self.graph = graph
        self.source = source
        self.flows: list[Flow] = []
        self.ties: list[Tie] = []
        self.pins: list[Pin] = []
        self.weights: dict[int, Labels] = {}
        self.produced: set[tuple[int, int]] = set()
        self.sizes: dict[tuple[str, str], object] = {}
        self.unknown: dict[str, str] = {}

    def resolve(self) -> ChannelMap:
        draft = ChannelMap.of_whole(self.graph)
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
        channel_of = components(self.source.count, self.ties)
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
        quantised = self.graph.operations[view.operation].quantised
        if quantised is not None:
            self.unknown[view.operation] = reason = why_whole(view.operation, quantised.mode)
            return pinned_flow(view, inputs, reason)
        rule = find_rule(view.kind)
        if rule is None and not view.weights and not any(labelled(labels) for labels in inputs):
            return pinned_flow(view, inputs, "")
        if rule is None:
            reason = f"'{view.operation}' is of kind {view.kind}, for which there is no rule"
            untraced = self.graph.operations[view.operation].untraced
            if untraced is not None:
                reason += f", and its call cannot be traced ({untraced})"
            self.unknown[view.operation] = reason
            return pinned_flow(view, inputs, reason)
        if fits_no_cut(self.graph.operations[view.operation].source):
            reason = f"'{view.operation}' keeps state besides its weights, which no cut follows"
            self.unknown.setdefault(view.operation, reason)
            return pinned_flow(view, inputs, reason)
        flow = rule.flow(view, inputs, self.source)
        if self.graph.operations[view.operation].spectral is not None:
            flow = _with_spectral(flow)
        _check_flow(view, flow)
        untraced = self.graph.operations[view.operation].untraced
        if untraced is not None and flow.pins:
            reason = f"the activation of '{view.operation}' cannot be traced ({untraced})"
            self.unknown[view.operation] = reason
            flow = replace(flow, pins=tuple(replace(pin, reason=reason) for pin in flow.pins))
        strange = sorted(set(view.weights) - set(flow.weights)) if flow.weights else []
        if strange or (view.weights and not flow.weights):
            reason = _why_whole(view, flow, strange)
            self.unknown.setdefault(view.operation, reason)
            self.pins.extend(pin_all(flow.outputs, reason))
            return pinned_flow(view, inputs, reason)
        return flow

    def _note_weights(self, index: int, flow: Flow) -> None:
        operation = self.graph.operations[self.graph.calls[index].operation]
        produces = _produced_axes(flow) if flow.produces is None else flow.produces
        for name, weight in operation.weights.items():
            labels = flow.weights.get(name, (None,) * len(weight.shape))
            fixed = only_wide_axis(name, weight.shape)
            if fixed is not None and (vector := labels[fixed]) is not None:
                self.pins.append(Pin(vector, REASON))
            self.produced.update((weight.key, axis) for axis in produces.get(name, ()))
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
        for key, value in (*flow.sizes.items(), *flow.settings.items()):
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


def _with_spectral(flow: Flow) -> Flow:
    """Add the vector by which the kernel's norm is estimated: a number for each last index."""
    if "kernel" not in flow.weights:
        return flow
    produces = _produced_axes(flow) if flow.produces is None else flow.produces
    vector: Labels = (None, flow.weights["kernel"][-1])
    return replace(flow, weights={**flow.weights, SPECTRAL_WEIGHT: vector}, produces=produces)


def _produced_axes(flow: Flow) -> dict[str, tuple[int, ...]]:
    """The axes of weights that have labels which the outputs have too."""
    made = [vector for labels in flow.outputs for _, vector in labelled(labels)]
    return {
        name: tuple(
            axis
            for axis, vector in labelled(labels)
            if any(vector is out or np.isin(vector[:1], out).all() for out in made)
        )
        for name, labels in flow.weights.items()
    }


def _entries(value: object) -> tuple[object, ...]:
    """The entries of a nested config entry, flattened."""
    if not isinstance(value, tuple):
        return (value,)
    return tuple(entry for part in value for entry in _entries(part))


def _vector(value: object) -> Vector | None:
    return value if isinstance(value, np.ndarray) else None


def _why_whole(view: CallView, flow: Flow, strange: list[str]) -> str:
    """Why a layer with weights is not cut: its rule's reason, or weights that have no labels."""
    if flow.whole:
        return f"'{view.operation}' is not cut: {flow.whole}"
    names = ", ".join(f"'{name}'" for name in strange or view.weights)
    return f"'{view.operation}' has weights that its rule does not cut ({names})"


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


def components(count: int, ties: list[Tie]) -> Vector:
    """For each of `count` labels, the number of its channel: labels that are tied share one."""
    if not ties or not count:
        return np.arange(count, dtype=np.int64)
    rows = np.concatenate([tie.first for tie in ties])
    columns = np.concatenate([tie.second for tie in ties])
    graph = coo_matrix((np.ones(len(rows), np.int8), (rows, columns)), shape=(count, count))
    _, labels = connected_components(graph, directed=False)
    return np.asarray(labels, dtype=np.int64)
