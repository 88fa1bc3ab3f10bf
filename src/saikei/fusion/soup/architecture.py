"""Whether models have one architecture, and their weights by layer and name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import keras
import numpy as np

from saikei.errors import FusionError
from saikei.fusion.members import Members
from saikei.graph import Call, Graph, Operation, Weight, read
from saikei.graph.state import differing_state
from saikei.merging.configs import stripped
from saikei.merging.kernels.blocks import Array, is_float
from saikei.rules import why_whole

# The layer's name in the first member, and the weight's name in the layer.
WeightName: TypeAlias = tuple[str, str]
Tensors: TypeAlias = dict[WeightName, Array]

# Layers whose weights describe the inputs: they are no result of training.
_PREPROCESSING = frozenset({"Normalization", "Discretization", "StringLookup", "IntegerLookup"})


def same_architecture(members: Members, base: keras.Model | None) -> list[Graph]:
    """Read members, and a base behind them, and check that they differ in weights alone.

    Args:
        members: Two or more.
        base: The model that they were fine-tuned from; `None` for none.

    Returns:
        Their graphs in this order.

    Raises:
        FusionError: Naming the member, the layer and what differs.
        ModelError: When a member cannot be read.
    """
    members.check_several()
    graphs = list(members.graphs)
    names = [f"member {n} ('{g.name}')" for n, g in enumerate(graphs, start=1)]
    if base is not None:
        graphs.append(read(base))
        names.append(f"the base ('{graphs[-1].name}')")
    for name, graph in zip(names, graphs, strict=True):
        _check_floats(name, graph)
    for name, graph in zip(names[1:], graphs[1:], strict=True):
        _compare(names[0], graphs[0], name, graph)
    return graphs


def _check_floats(name: str, graph: Graph) -> None:
    """Quantised weights have scales of their own and cannot be averaged one by one."""
    for operation in graph.operations.values():
        if operation.quantised is not None:
            reason = why_whole(operation.name, operation.quantised.mode)
            raise FusionError(f"In {name}, {reason}.")


def tensors(graph: Graph, like: Graph) -> Tensors:
    """The weights of a graph, tied ones once, by the layers and names of the graph `like`."""
    pairs = zip(_operations(graph), _operations(like), strict=True)
    found: Tensors = {}
    seen: set[int] = set()
    for operation, named in pairs:
        for own, name in zip(operation.weights.values(), named.weights, strict=True):
            if own.key not in seen:
                seen.add(own.key)
                found[named.name, name] = own.numpy()
    return found


def with_tensors(graph: Graph, numbers: Mapping[WeightName, Array]) -> Graph:
    """The graph with other weights of the same shapes."""
    by_key = {graph.operations[o].weights[w].key: array for (o, w), array in numbers.items()}

    def changed(weight: Weight) -> Weight:
        return weight.with_array(by_key[weight.key]) if weight.key in by_key else weight

    return graph.with_operations(
        {
            name: replace(
                operation, weights={key: changed(w) for key, w in operation.weights.items()}
            )
            for name, operation in graph.operations.items()
            if operation.weights
        }
    )


def unmerged_weights(graph: Graph, members: Sequence[Tensors]) -> set[WeightName]:
    """Names of weights that are not merged: those that are no floats, and of preprocessing.

    Raises:
        FusionError: When members differ there.
    """
    kept: set[WeightName] = set()
    for key, array in members[0].items():
        layer, name = key
        kind = graph.operations[layer].kind
        if is_float(array.dtype) and kind not in _PREPROCESSING:
            continue
        kept.add(key)
        for number, other in enumerate(members[1:], start=2):
            if np.array_equal(array, other[key]):
                continue
            if kind in _PREPROCESSING:
                raise FusionError(
                    f"Member {number} prepares its inputs otherwise than member 1: '{name}' of "
                    f"{kind} layer '{layer}' differs. Train members behind one such layer."
                )
            raise FusionError(
                f"'{name}' of layer '{layer}' is {array.dtype} and differs in member "
                f"{number}: whole numbers cannot be averaged. Merge models before they are "
                "quantised."
            )
    return kept


def statistics(graph: Graph) -> set[WeightName]:
    """The names of the moving statistics of BatchNormalization."""
    return {
        (operation.name, name)
        for operation in graph.operations.values()
        if operation.kind == "BatchNormalization"
        for name in operation.weights
        if name.startswith("moving_")
    }


def _operations(graph: Graph) -> list[Operation]:
    """The operations in the order in which they are called first."""
    return [graph.operations[name] for name in dict.fromkeys(c.operation for c in graph.calls)]


def _compare(name_a: str, a: Graph, name_b: str, b: Graph) -> None:
    pair = f"{name_a[0].upper()}{name_a[1:]} and {name_b} are not of one architecture"
    fix = "a soup needs copies of one network with other weights"
    ours, theirs = _operations(a), _operations(b)
    for one, other in zip(ours, theirs, strict=False):
        difference = _difference(one, other)
        if difference:
            raise FusionError(
                f"{pair}: layers '{one.name}' and '{other.name}' differ in {difference}; {fix}, "
                "or use Average."
            )
    if len(ours) != len(theirs):
        raise FusionError(
            f"{pair}: they have {len(ours)} and {len(theirs)} layers and operations; {fix}, or "
            "use Average."
        )
    position = {operation.name: number for number, operation in enumerate(ours)}
    other_position = {operation.name: number for number, operation in enumerate(theirs)}
    for one_call, other_call in zip(a.calls, b.calls, strict=False):
        if _wiring(one_call, position) != _wiring(other_call, other_position):
            raise FusionError(
                f"{pair}: '{one_call.operation}' reads or gives other tensors in each; {fix}, or "
                "use Average."
            )
    if len(a.calls) != len(b.calls) or (a.inputs, a.outputs) != (b.inputs, b.outputs):
        raise FusionError(f"{pair}: their layers are connected otherwise; {fix}, or use Average.")


def _difference(a: Operation, b: Operation) -> str | None:
    """The first difference of two operations, as a part of a sentence; `None` if there is none."""
    if a.kind != b.kind:
        return f"kind ({a.kind} and {b.kind})"
    ours, theirs = (_settings(o.config) for o in (a, b))
    for key in sorted({*ours, *theirs}):
        if not _equal(ours.get(key), theirs.get(key)):
            return f"{key} ({ours.get(key)!r:.60} and {theirs.get(key)!r:.60})"
    shapes = [[(w.shape, _dtype(w)) for w in o.weights.values()] for o in (a, b)]
    if shapes[0] != shapes[1]:
        return f"the shapes of their weights ({shapes[0]} and {shapes[1]})"
    if _ties(a) != _ties(b):
        return "which of their weights are tied"
    different = differing_state(a.source, b.source)
    if different:
        return f"their {', '.join(different)}, which cannot be merged"
    return None


def _dtype(weight: Weight) -> str:
    return str(weight.numpy().dtype)


def _ties(operation: Operation) -> list[int]:
    keys = [weight.key for weight in operation.weights.values()]
    return [keys.index(key) for key in keys]


def _settings(config: Any) -> dict[str, Any]:
    return dict(stripped(config or {}))


def _equal(a: Any, b: Any) -> bool:
    """Equality of settings and arguments, which may hold arrays."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_equal(a[key], b[key]) for key in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(_equal(x, y) for x, y in zip(a, b, strict=True))
    if hasattr(a, "shape") or hasattr(b, "shape"):
        return bool(np.array_equal(np.asarray(a), np.asarray(b)))
    return bool(a == b) or repr(a) == repr(b)


class _Wiring:
    """The inputs and outputs of a call, comparable between graphs."""

    def __init__(self, call: Call, position: int) -> None:
        self.fixed = (position, call.slots(), call.outputs)
        self.arguments = [stripped(leaf) for leaf in call.leaves()]

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, _Wiring)
            and self.fixed == other.fixed
            and _equal(self.arguments, other.arguments)
        )

    __hash__ = None  # type: ignore[assignment]


def _wiring(call: Call, position: Mapping[str, int]) -> _Wiring:
    return _Wiring(call, position[call.operation])
