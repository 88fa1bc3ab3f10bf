"""Which units go: one after the other, the least harmful first, until it is enough."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from saikei.budget import Budget
from saikei.channels import map_channels
from saikei.costs import Counts, check_countable, measure_latency, peak_bytes
from saikei.edits.depth.dominators import CostTable, dead_calls
from saikei.edits.depth.ranking import Ranking
from saikei.edits.depth.units import Unit, leaves
from saikei.errors import EditError
from saikei.graph import Graph, TensorRef, build, redirect


def removal_order(
    units: Sequence[Unit], ranking: Ranking, count: int | None = None
) -> Iterator[Unit]:
    """Take out the unit that does the least harm for each unit in it, again and again.

    Args:
        units: The units that may go; the ranking has scores for all of them.
        ranking: The ranking, which scores again at each step.
        count: How many of the smallest units go in all; one that contains others counts as many.
            All go when not given.
    """
    left, small = list(units), leaves(units)
    gone: set[TensorRef] = set()
    while left and count != 0:
        sizes = {u.name: _size(u, [s for s in small if s in left]) for u in left}
        fitting = [u for u in left if count is None or sizes[u.name] <= count]
        scores = ranking.scores(fitting, gone) if fitting else []
        ranked = [
            (score / sizes[unit.name], position)
            for position, (unit, score) in enumerate(zip(fitting, scores, strict=True))
            if score is not None
        ]
        if not ranked:
            return
        chosen = fitting[min(ranked)[1]]
        yield chosen
        gone.update(chosen.around)
        count = None if count is None else count - sizes[chosen.name]
        left = [u for u in left if not chosen.contains(u) and not gone & set(u.around)]


def within_budget(
    graph: Graph, units: Sequence[Unit], ranking: Ranking, budget: Budget
) -> list[Unit]:
    """Take units out until the graph keeps a budget.

    Args:
        graph: The graph that the units are in.
        units: The units that may go.
        ranking: The ranking of the units.
        budget: The limits; shares are of this graph.

    Raises:
        BudgetError: When it is not kept even without all of them; the message has what is reached.
        EditError: When the graph keeps it as it is.
    """
    check_countable(graph, budget)
    table = CostTable(graph)
    original = _costs(graph, table, [], budget)
    if budget.fits(original, original):
        raise EditError(
            f"RemoveLayers would change nothing: model '{graph.name}' keeps the budget "
            f"'{budget}' as it is."
        )
    removed: list[Unit] = []
    reached = original
    for unit in removal_order(units, ranking):
        removed.append(unit)
        reached = _costs(graph, table, removed, budget)
        if budget.fits(reached, original):
            return removed
    by = f"leaving out all {len(removed)} parts that can be left out"
    raise budget.unreachable(reached, original, by)


def _size(unit: Unit, small: Sequence[Unit]) -> int:
    """How many of the smallest units go with one."""
    return max(1, sum(unit is other or unit.contains(other) for other in small))


def all_around(units: Sequence[Unit]) -> dict[TensorRef, TensorRef]:
    """The tensors that are bypassed when all the units are left out."""
    return {given: taken for unit in units for given, taken in unit.around.items()}


def _costs(graph: Graph, table: CostTable, units: Sequence[Unit], budget: Budget) -> Counts:
    around = all_around(units)
    counts = table.without(dead_calls(graph, around))
    if budget.memory is None and budget.latency is None:
        return counts
    left = redirect(graph, around)
    counts = replace(counts, memory=peak_bytes(map_channels(left)))
    if budget.latency is None:
        return counts
    milliseconds = measure_latency(build(left), budget.batch_size, sizes=graph.sizes)
    return replace(counts, latency=milliseconds, batch_size=budget.batch_size)
