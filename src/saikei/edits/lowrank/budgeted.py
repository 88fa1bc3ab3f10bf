"""The splits that lose least within a `Budget`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from saikei.budget import Budget
from saikei.channels import map_channels
from saikei.costs import Counts, check_countable, count_costs, measure_latency
from saikei.edits.lowrank.options import Options, least_loss_within, total_cost
from saikei.edits.lowrank.plan import split_layers
from saikei.errors import BudgetError, EditError
from saikei.graph import Graph, build

# Each step of a latency budget builds and times a model.
LATENCY_STEPS = 6


def choose_within(graph: Graph, options: Sequence[Options], budget: Budget, edit: str) -> list[int]:
    """A row for each layer, so that the whole graph keeps the budget.

    Args:
        graph: The graph; shares are of it.
        options: The options of each layer that may be split.
        budget: The limits on the costs of the edited model.
        edit: The edit's name, for messages.

    Raises:
        EditError: When the graph keeps the budget as it is.
        BudgetError: When no choice keeps it; the message has how near one comes.
    """
    check_countable(graph, budget)
    counts = count_costs(map_channels(graph))
    timed = budget.latency is not None
    latency = measure_latency(build(graph), sizes=graph.sizes) if timed else None
    original = Counts(counts.params, counts.macs, latency)
    if budget.fits(original, original):
        raise EditError(f"{edit} would change nothing: the model keeps the budget '{budget}'.")
    limits = budget.limits(original)
    milliseconds = limits.pop("latency", None)
    room = {
        name: limit - getattr(original, name) + total_cost(options, [0] * len(options), name)
        for name, limit in limits.items()
    }
    if milliseconds is None:
        rows = least_loss_within(options, room)
        if rows is None:
            least = {
                name: getattr(original, name)
                - total_cost(options, [0] * len(options), name)
                + int(sum(o.costs[name].min() for o in options))
                for name in ("params", "macs")
            }
            raise budget.unreachable(Counts(**least, latency=latency), original, edit)
        return rows

    def fast(rows: list[int]) -> bool:
        split = build(split_layers(graph, options, rows))
        return measure_latency(split, sizes=graph.sizes) <= milliseconds

    return _fast_enough(options, room, fast, f"{edit}: budget '{budget}'")


def _fast_enough(
    options: Sequence[Options],
    room: dict[str, float],
    fast: Callable[[list[int]], bool],
    what: str,
) -> list[int]:
    """Bisect a limit on MACs for the closest choice that is measured to be fast enough."""
    whole = total_cost(options, [0] * len(options), "macs")
    high = min(room.get("macs", whole), whole)
    low = float(sum(o.costs["macs"].min() for o in options))
    best: list[int] | None = None
    for step in range(LATENCY_STEPS + 1):
        # The smallest first: where that is too slow, nothing else need be built.
        limit = low if step == 0 else (low + high) / 2
        rows = least_loss_within(options, {**room, "macs": limit})
        if rows is not None and fast(rows):
            best, low = rows, limit
        elif step == 0:
            break
        else:
            high = limit
    if best is None:
        raise BudgetError(
            f"{what} cannot be reached by splitting layers: the fewest MACs that it can bring "
            f"these layers to ({low:,.0f} of {whole:,}) were measured, and take longer. Raise it."
        )
    return best
