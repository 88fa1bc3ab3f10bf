"""Where a model holds activation functions, and which of them an edit means."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from saikei.edits.folding.readers import OUTPUT, readers
from saikei.edits.replacing.functions import (
    NORMALISING,
    Function,
    canonical_name,
    function_of_argument,
    function_of_class,
)
from saikei.edits.replacing.selection import (
    is_carrier,
    output_operations,
)
from saikei.errors import EditError, quoted
from saikei.graph import Graph, Operation, TensorRef

_FUSED = frozenset(
    [f"Conv{n}D" for n in (1, 2, 3)]
    + [f"Conv{n}DTranspose" for n in (1, 2, 3)]
    + [f"{kind}Conv{n}D" for kind in ("Depthwise", "Separable") for n in (1, 2)]
    + ["Dense", "EinsumDense"]
)
_RECURRENT = frozenset(
    {"LSTM", "GRU", "SimpleRNN", "RNN", "Bidirectional"} | {f"ConvLSTM{n}D" for n in (1, 2, 3)}
)


@dataclass(frozen=True)
class Site:
    """A layer or operation that applies an activation function.

    Args:
        operation: The name of the operation.
        function: What it applies.
        fused: Whether it does something else before.
    """

    operation: str
    function: Function
    fused: bool


def sites(graph: Graph) -> dict[str, Site]:
    """Every activation function of a graph, by the operation that applies it."""
    found = {}
    for name, operation in graph.operations.items():
        function = _function(operation)
        if function is not None:
            found[name] = Site(name, function, operation.plain_kind in _FUSED)
    return found


def _function(operation: Operation) -> Function | None:
    if operation.plain_kind in _FUSED or operation.kind == "Activation":
        return function_of_argument((operation.config or {}).get("activation"))
    return function_of_class(operation.kind.removeprefix("ops."), operation.config)


def chosen_sites(
    edit: str, graph: Graph, old: str, layers: tuple[str, ...], exclude: tuple[str, ...]
) -> list[Site]:
    """The sites that an edit means.

    Raises:
        EditError: When a named layer does not have the function, or no layer has.
    """
    found = sites(graph)
    if layers:
        return [_named_site(edit, graph, found, old, name) for name in layers]
    outputs, gates = output_operations(graph), _gates(graph, found)
    asked = [site for site in found.values() if _matches(site.function, old)]
    chosen = [
        site
        for site in asked
        if site.operation not in exclude
        and site.operation not in outputs
        and not (site.operation in gates and (old == "any" or _capped(site.function)))
    ]
    if not chosen:
        raise EditError(_nothing_chosen(edit, found, old, asked, outputs, gates))
    return chosen


def _matches(function: Function, old: str) -> bool:
    if old == "any":
        return function.known and function.name not in {"linear", *NORMALISING}
    if canonical_name(old) == "relu":
        # One with a threshold, a maximum or a slope is another function.
        return function.name == "relu" and function.plain
    return function.name == canonical_name(old)


def _named_site(edit: str, graph: Graph, found: Mapping[str, Site], old: str, name: str) -> Site:
    if name not in found:
        kind = graph.operations[name].kind
        reason = (
            "its functions belong to its recurrence, which this edit leaves alone"
            if kind in _RECURRENT
            else "it has no activation function that can be replaced"
        )
        raise EditError(f"{edit}: layer '{name}' ({kind}): {reason}; leave it out of layers.")
    site = found[name]
    if old == "any" and site.function.name == "linear":
        raise EditError(
            f"{edit}: layer '{name}' has no activation function to replace; "
            "old='linear' gives it one."
        )
    if old != "any" and not _matches(site.function, old):
        raise EditError(
            f"{edit}: layer '{name}' has activation '{site.function}', not '{old}': "
            "use old='any', or leave it out of layers."
        )
    return site


def _capped(function: Function) -> bool:
    return function.name in ("relu", "relu6")


def _gates(graph: Graph, found: Mapping[str, Site]) -> set[str]:
    """Functions whose values scale another tensor: squeeze-and-excite and its like."""
    reading = readers(graph)
    gates = set()
    for index, call in enumerate(graph.calls):
        site = found.get(call.operation)
        if site is None or not site.function.bounded:
            continue
        # A ReLU6 may be multiplied as any signal; as a gate it is a hard sigmoid, relu6(x + 3).
        if _shifted(graph, index) if _capped(site.function) else _scales(graph, reading, index):
            gates.add(site.operation)
    return gates


def _shifted(graph: Graph, index: int) -> bool:
    before = [graph.calls[ref.call] for ref in graph.calls[index].inputs()]
    return all(
        graph.operations[call.operation].kind == "ops.Add" and len(call.inputs()) == 1
        for call in before
    )


def _scales(graph: Graph, reading: Mapping[TensorRef, list[int]], index: int) -> bool:
    waiting = list(reading.get(TensorRef(index, 0), ()))
    while waiting:
        current = waiting.pop()
        if current == OUTPUT:
            continue
        call = graph.calls[current]
        product = graph.operations[call.operation].kind in ("Multiply", "ops.Multiply")
        if product and len(call.inputs()) > 1:
            return True
        if product or is_carrier(graph, call):
            waiting.extend(reading.get(TensorRef(current, 0), ()))
    return False


def _nothing_chosen(
    edit: str,
    found: Mapping[str, Site],
    old: str,
    asked: list[Site],
    outputs: set[str],
    gates: set[str],
) -> str:
    if asked:
        spared = [site.operation for site in asked if site.operation in outputs | gates]
        reason = (
            f"{quoted(spared)} give model outputs or gates, which have to be named in layers"
            if spared
            else "all are excluded"
        )
        return f"{edit} would change nothing: {reason}."
    kinds: dict[str, list[str]] = {}
    for site in found.values():
        kinds.setdefault(site.function.name, []).append(site.operation)
    has = "; ".join(f"{kind} ({quoted(names, 2)})" for kind, names in kinds.items())
    return f"{edit} finds no '{old}' to replace: the model has {has or 'no activations'}."
