"""Options that depend on each other, measured together: blocks, and channels of new layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from saikei.edits.drop_channels import DropChannels
from saikei.edits.options import Option
from saikei.graph import Graph
from saikei.search.library.library import LeftOut, Measured, Pair

# Blocks that are removed one by one.
DEPTH = 16
# The stage of edits that give layers other forms.
_FORMS = 2

Measure = Callable[[Sequence[tuple[Option, ...]]], list[Measured | LeftOut]]


def with_new_layers(
    measure: Measure, graph: Graph, entries: Sequence[Measured]
) -> tuple[Pair, ...]:
    """Options of the layers that new layers read, together with the option that brings these.

    A pooled map of few channels, or of low rank, holds much less than a flattened one.

    Args:
        measure: Measures options that are applied together.
        graph: The original.
        entries: The options alone.
    """
    replacing = [entry.option for entry in entries if entry.option.edit.replaces]
    first = {option.layers[0] for option in replacing}
    of_site = {entry.option.site: entry.option for entry in entries}
    read = {
        (site, layer)
        for layer in first
        for site, option in of_site.items()
        if _narrows(graph, option, layer)
        or (option.edit.stage == _FORMS and _read_layers(graph, layer) & set(option.layers))
    }
    pairs = [
        (new, entry.option)
        for new in replacing
        for entry in entries
        if (entry.option.site, new.layers[0]) in read
    ]
    found = measure(pairs) if pairs else []
    return tuple(
        Pair(first, one)
        for (first, _), one in zip(pairs, found, strict=True)
        if isinstance(one, Measured)
    )


def _narrows(graph: Graph, option: Option, layer: str) -> bool:
    """Whether a layer reads fewer channels after an option."""
    if not isinstance(option.edit, DropChannels) or layer in option.layers:
        return False
    return _read_shapes(option.edit.unfitted(graph)[0], layer) != _read_shapes(graph, layer)


def _read_layers(graph: Graph, layer: str) -> set[str]:
    """The nearest layers with kernels whose outputs reach a layer."""
    waiting = [ref for call in graph.calls if call.operation == layer for ref in call.inputs()]
    found = set[str]()
    while waiting:
        call = graph.calls[waiting.pop().call]
        if "kernel" in graph.operations[call.operation].weights:
            found.add(call.operation)
        else:
            waiting += call.inputs()
    return found


def _read_shapes(graph: Graph, layer: str) -> list[tuple[int | None, ...]]:
    calls = [call for call in graph.calls if call.operation == layer]
    return [graph.spec(ref).shape for call in calls for ref in call.inputs()]


def one_by_one(measure: Measure, entries: Sequence[Measured]) -> tuple[Measured, ...]:
    """Blocks removed one after the other, each time the one that then loses least.

    A loss hardly shrinks when more blocks are gone. So the losses of the step before are bounds,
    and only the blocks that may still be the best are measured again.

    Args:
        measure: Measures options that are applied together.
        entries: The options alone.
    """
    bounds = {e.option.site: e for e in entries if e.option.edit.one_by_one}
    removed: list[Measured] = []
    while bounds and len(removed) < DEPTH:
        gone = tuple(one.option for one in removed)
        best = _least(measure, bounds, gone) if gone else min(bounds.values(), key=_loss)
        if best is None:
            break
        removed.append(best)
        del bounds[best.option.site]
        taken = set(best.option.layers)
        bounds = {s: e for s, e in bounds.items() if not taken >= set(e.option.layers)}
    return tuple(removed)


def _least(
    measure: Measure, bounds: dict[str, Measured], gone: tuple[Option, ...]
) -> Measured | None:
    """The block that loses least beside those that are gone; `bounds` gets the new losses."""
    current: dict[str, Measured] = {}
    while True:
        best = min(current.values(), key=_loss, default=None)
        rest = [e for s, e in bounds.items() if s not in current]
        nearest = min(rest, key=_loss, default=None)
        if best is not None and (nearest is None or best.loss <= nearest.loss):
            return best
        if nearest is None:
            return None
        (found,) = measure([(*gone, nearest.option)])
        if isinstance(found, LeftOut):
            del bounds[nearest.option.site]
            continue
        current[nearest.option.site] = bounds[nearest.option.site] = found


def _loss(entry: Measured) -> float:
    return entry.loss
