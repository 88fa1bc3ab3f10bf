"""Which layers of a graph are split, and what the others are left alone for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from saikei.edits.drop_channels import check_layer_names
from saikei.edits.lowrank.options import Options, paying_options
from saikei.edits.lowrank.split import Splits
from saikei.errors import EditError
from saikei.graph import Graph, Operation
from saikei.rules import why_whole

Splitter = Callable[[Graph, Operation], Splits | str]

# Reasons named in one message; a large network has hundreds of layers.
SHOWN = 12


@dataclass(frozen=True)
class Found:
    """What could be split, and what not.

    Args:
        options: of each layer that pays at some rank, in the graph's order.
        left_alone: why, for every other layer that was asked for.
    """

    options: tuple[Options, ...]
    left_alone: Mapping[str, str]


def find_options(
    graph: Graph,
    splitters: Mapping[str, Splitter],
    layers: tuple[str, ...],
    exclude: tuple[str, ...],
    edit: str,
) -> Found:
    """The ranks that pay, for each layer of a kind that can be split.

    Args:
        graph: the graph.
        splitters: for each kind of layer, how it is split.
        layers: only these; empty for all that fit.
        exclude: not these.
        edit: the edit's name, for messages.

    Raises:
        EditError: when a layer is unknown, or of a kind that cannot be split.
    """
    check_layer_names(layers, graph, f"{edit}(layers=…)")
    check_layer_names(exclude, graph, f"{edit}(exclude=…)")
    kinds = ", ".join(splitters)
    options, left_alone = [], {}
    for name, operation in graph.operations.items():
        if name in exclude or (layers and name not in layers):
            continue
        if operation.quantised is not None and operation.plain_kind in splitters:
            left_alone[name] = f"stays whole: {why_whole(name, operation.quantised.mode)}"
            continue
        if operation.kind not in splitters:
            if layers:
                raise EditError(
                    f"{edit} cannot split layer '{name}' of kind {operation.kind}: "
                    f"name layers of kind {kinds}."
                )
            continue
        found = splitters[operation.kind](graph, operation)
        choice = None if isinstance(found, str) else paying_options(found)
        if choice is None:
            left_alone[name] = str(found)
        elif len(choice.rank) == 1:
            left_alone[name] = f"is smaller as it is: {_smallest(choice)}"
        else:
            options.append(choice)
    return Found(tuple(options), left_alone)


def _smallest(options: Options) -> str:
    splits = options.splits
    way = min(splits.ways, key=lambda way: (way.params_per_rank, way.macs_per_rank))
    if way.params_per_rank < splits.params:
        return f"rank 1 needs {way.macs_per_rank:,} MACs, and it has {splits.macs:,}"
    return f"rank 1 needs {way.params_per_rank:,} weights, and it has {splits.params:,}"


def listed(reasons: Mapping[str, str]) -> str:
    """Reasons layer by layer, on one line."""
    parts = [f"{name} {reason}" for name, reason in reasons.items()]
    more = f"; and {len(parts) - SHOWN} more" if len(parts) > SHOWN else ""
    return "; ".join(parts[:SHOWN]) + more
