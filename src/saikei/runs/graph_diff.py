"""Two models compared node by node: what is kept, narrower, replaced, removed and added."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import keras
import numpy as np

from saikei.calibration.run import Run
from saikei.channels import ChannelMap, map_channels
from saikei.codec import ToDict
from saikei.columns import in_columns
from saikei.costs.counting import call_macs, count_costs
from saikei.graph import Graph, read, sized
from saikei.graph.samples import random_inputs
from saikei.rules.base import product

# What `ReplaceActivation` adds to the name of a layer whose activation becomes one of its own.
_APART = "_linear"

Status = Literal["same", "narrower", "changed", "removed", "added"]


@dataclass(frozen=True)
class Side:
    """A node as it is in one of the two models.

    Args:
        name: Name of the layer or operation; later calls of a shared layer have a number behind.
        kind: Its class, such as `"Conv2D"`.
        shape: Shape of its first output without the batch axis.
        channels: Number of channels of that output; `None` if it has no axes.
        params: Number of its parameters; 0 at the later calls of a shared layer.
        macs: Multiply-accumulates per sample; `None` if they cannot be counted.
        inputs: Names of the nodes that it reads.
        milliseconds: Time of the node alone for a batch, one operation after the other as the
            backend runs it without compiling; `None` if it was not measured.
    """

    name: str
    kind: str
    shape: tuple[int | None, ...]
    channels: int | None
    params: int
    macs: int | None
    inputs: tuple[str, ...]
    milliseconds: float | None = None


@dataclass(frozen=True)
class Node:
    """A node of the two graphs laid over each other.

    Args:
        status: What became of it.
        before: As it is in the first model; `None` if it was added.
        after: As it is in the second model; `None` if it was removed.
        inputs: Positions of the nodes before it that it reads, in either model.
    """

    status: Status
    before: Side | None
    after: Side | None
    inputs: tuple[int, ...]

    @property
    def side(self) -> Side:
        """The node in the second model, or in the first where it was removed."""
        side = self.after or self.before
        assert side is not None
        return side

    @property
    def kept(self) -> float | None:
        """The share of the channels that is kept; `None` for what was removed or added."""
        if self.before is None or self.after is None or not self.before.channels:
            return None
        return (self.after.channels or 0) / self.before.channels


@dataclass(frozen=True)
class GraphDiff(ToDict):
    """Two models laid over each other; printed, it is a table of their nodes.

    Args:
        first: Name of the first model.
        second: Name of the second model.
        nodes: All nodes of both, each after those that it reads.
        macs: Multiply-accumulates per sample of the first and the second model.
        params: Parameters of the first and the second model.
        batch_size: Samples in the batch that milliseconds are for.
    """

    first: str
    second: str
    nodes: tuple[Node, ...]
    macs: tuple[int, int]
    params: tuple[int, int]
    batch_size: int = 32

    @property
    def timed(self) -> bool:
        """Whether milliseconds were measured."""
        return any(node.side.milliseconds is not None for node in self.nodes)

    @property
    def counts(self) -> Mapping[Status, int]:
        """How many nodes have each status."""
        known: tuple[Status, ...] = ("same", "narrower", "changed", "removed", "added")
        return {one: sum(node.status == one for node in self.nodes) for one in known}

    def summary(self) -> str:
        """The totals, on one line."""
        parts = ", ".join(f"{count} {status}" for status, count in self.counts.items() if count)
        macs, params = self.macs, self.params
        return (
            f"{self.first} → {self.second}: {parts}; {macs[0]:,} → {macs[1]:,} MACs "
            f"({100 * macs[1] / max(macs[0], 1):.1f} %), {params[0]:,} → {params[1]:,} parameters "
            f"({100 * params[1] / max(params[0], 1):.1f} %)"
        )

    def __str__(self) -> str:
        rows = [("", "layer", "kind", "channels", "MACs before", "MACs after")]
        rows += [_row(node) for node in self.nodes]
        return f"{in_columns(rows, right=(3, 4, 5))}\n\n{self.summary()}"


def _row(node: Node) -> tuple[str, str, str, str, str, str]:
    return (
        "" if node.status == "same" else node.status,
        *both(node.before, node.after),
        channels_text(node),
        "" if node.before is None else _count(node.before.macs),
        "" if node.after is None else _count(node.after.macs),
    )


def both(before: Side | None, after: Side | None) -> tuple[str, str]:
    """Name and kind of a node, with an arrow where they differ between the models."""
    sides = [side for side in (before, after) if side is not None]
    names = dict.fromkeys(side.name for side in sides)
    kinds = dict.fromkeys(side.kind for side in sides)
    return " → ".join(names), " → ".join(kinds)


def channels_text(node: Node) -> str:
    """The channels of a node, such as `"24 of 32"`."""
    if node.kept is None or node.before is None or node.after is None:
        return "" if node.side.channels is None else str(node.side.channels)
    before, after = node.before.channels, node.after.channels
    if before == after:
        return str(after)
    return f"{after} of {before}" if (after or 0) < (before or 0) else f"{before} → {after}"


def _count(macs: int | None) -> str:
    return "not counted" if macs is None else f"{macs:,}"


def compare_graphs(
    first: keras.Model, second: keras.Model, timed: bool = False, batch_size: int = 32
) -> GraphDiff:
    """Compare two models node by node.

    Nodes are the same if they have one name; nodes whose name is in one model only are matched by
    their kind, in the order in which they are computed.

    Args:
        first: A built model.
        second: Another one.
        timed: Whether the milliseconds of each node are measured.
        batch_size: Samples in the batch that they are measured on.

    Raises:
        ModelError: If one cannot be read.
    """
    maps = [map_channels(read(model)) for model in (first, second)]
    before, after = (_sides(one, _times(one.graph, batch_size) if timed else {}) for one in maps)
    counted = [count_costs(one) for one in maps]
    return GraphDiff(
        first.name,
        second.name,
        _overlaid(before, after, _matches(before, after)),
        (counted[0].macs, counted[1].macs),
        (counted[0].params, counted[1].params),
        batch_size,
    )


def _times(graph: Graph, batch_size: int) -> dict[int, float]:
    """Milliseconds of each call, on made-up inputs; none for inputs of unknown sizes."""
    full = sized(graph).graph
    if any(None in full.spec(ref).shape[1:] for ref in full.input_refs()):
        return {}
    inputs = random_inputs(graph, batch_size, np.random.default_rng(0), sizes=full.sizes)
    run, found = Run(full, inputs), {}
    for index, call in enumerate(full.calls):
        if full.operations[call.operation].kind != "InputLayer":
            found[index] = 1000 * run.seconds(index)
        run.step(index)
    return found


def _sides(channel_map: ChannelMap, times: Mapping[int, float]) -> list[Side]:
    graph = channel_map.graph
    shapes = _shapes(graph)
    names: list[str] = []
    seen: set[int] = set()
    sides = []
    for index, call in enumerate(graph.calls):
        operation = graph.operations[call.operation]
        called = sum(other.operation == call.operation for other in graph.calls[:index])
        names.append(operation.name if not called else f"{operation.name} ({called + 1})")
        new = {name: w for name, w in operation.weights.items() if w.key not in seen}
        seen.update(weight.key for weight in new.values())
        config = operation.config or {}
        axis = 0 if config.get("data_format") == "channels_first" else -1
        shape = shapes[index]
        sides.append(
            Side(
                name=names[index],
                kind=operation.kind.removeprefix("ops."),
                shape=shape,
                channels=shape[axis] if shape else None,
                params=sum(product(weight.shape) for weight in new.values()),
                macs=call_macs(channel_map, index),
                inputs=tuple(dict.fromkeys(names[ref.call] for ref in call.inputs())),
                milliseconds=times.get(index),
            )
        )
    return sides


def _shapes(graph: Graph) -> list[tuple[int | None, ...]]:
    full = sized(graph).graph
    return [tuple(call.outputs[0].shape[1:]) if call.outputs else () for call in full.calls]


def _matches(before: Sequence[Side], after: Sequence[Side]) -> dict[int, int]:
    """For nodes of the second model the position of the same one in the first."""
    places = {side.name: index for index, side in enumerate(before)}
    found: dict[int, int] = {}
    # A layer whose activation became one of its own has another name, and the activation has its.
    for apart in (True, False):
        for i, side in enumerate(after):
            position = places.get(side.name.removesuffix(_APART) if apart else side.name)
            if position is None or position in found.values() or i in found:
                continue
            if not apart or (side.name.endswith(_APART) and side.kind == before[position].kind):
                found[i] = position
    used = set(found.values())
    rest_before = [i for i in range(len(before)) if i not in used]
    rest_after = [i for i in range(len(after)) if i not in found]
    matcher = difflib.SequenceMatcher(
        None,
        [before[i].kind for i in rest_before],
        [after[i].kind for i in rest_after],
        autojunk=False,
    )
    for block in matcher.get_matching_blocks():
        for offset in range(block.size):
            found[rest_after[block.b + offset]] = rest_before[block.a + offset]
    return found


def _overlaid(
    before: Sequence[Side], after: Sequence[Side], matches: Mapping[int, int]
) -> tuple[Node, ...]:
    """All nodes, in the order of the first model, with added ones behind what they read."""
    at = {side.name: i for i, side in enumerate(after)}
    keys: dict[int, tuple[float, int]] = {}
    for index, side in enumerate(after):
        read_keys = [keys[at[name]] for name in side.inputs]
        last = max(read_keys, default=(-1.0, 0))
        keys[index] = (float(matches[index]), -1) if index in matches else (last[0], index)
    twins = {first: second for second, first in matches.items()}
    entries: list[tuple[tuple[float, int], Side | None, Side | None]] = [
        ((float(i), -1), side, after[twins[i]] if i in twins else None)
        for i, side in enumerate(before)
    ]
    entries += [(keys[i], None, side) for i, side in enumerate(after) if i not in matches]
    entries.sort(key=lambda entry: entry[0])
    first_at = {one.name: n for n, (_, one, _) in enumerate(entries) if one is not None}
    second_at = {one.name: n for n, (_, _, one) in enumerate(entries) if one is not None}
    nodes = []
    for number, (_, old, new) in enumerate(entries):
        reads = {first_at[name] for name in (old.inputs if old else ())}
        reads |= {second_at[name] for name in (new.inputs if new else ())}
        inputs = tuple(sorted(position for position in reads if position < number))
        nodes.append(Node(_status(old, new), old, new, inputs))
    return tuple(nodes)


def _status(before: Side | None, after: Side | None) -> Status:
    if before is None:
        return "added"
    if after is None:
        return "removed"
    if before.kind != after.kind:
        return "changed"
    if (after.channels or 0) < (before.channels or 0):
        return "narrower"
    same = (before.channels, before.params, before.macs) == (
        after.channels,
        after.params,
        after.macs,
    )
    if same:
        return "same"
    return "narrower" if after.params <= before.params else "changed"
