"""The splits that lose least within a `Budget`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from saikei.budget import Budget
from saikei.channels import ChannelMap
from saikei.costs import Counts, check_countable, count_costs, measure_latency
from saikei.edits.lowrank.options import Options, least_loss_within, total_cost
from saikei.edits.lowrank.plan import split_layers
from saikei.errors import EditError
from saikei.graph import Graph, build

# What is the sum of what the layers cost; latency and memory are not.
ADDITIVE = ("params", "macs", "bytes")
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
    original = _measured(graph, budget)
    if budget.fits(original, original):
        raise EditError(f"{edit} would change nothing: the model keeps the budget '{budget}'.")
    additive = {n: limit for n, limit in budget.limits(original).items() if n in ADDITIVE}
    room = {
        name: limit - getattr(original, name) + total_cost(options, [0] * len(options), name)
        for name, limit in additive.items()
    }
    rows = least_loss_within(options, room)
    if rows is None:
        least = {
            name: getattr(original, name)
            - total_cost(options, [0] * len(options), name)
            + int(sum(o.costs[name].min() for o in options))
            for name in ADDITIVE
        }
        raise budget.unreachable(replace(original, **least), original, edit)
    if len(additive) == len(budget.given()):
        return rows

    def reached(rows: list[int]) -> Counts:
        return _measured(split_layers(graph, options, rows), budget)

    return _small_enough(options, room, reached, budget, original, edit)


def _measured(graph: Graph, budget: Budget) -> Counts:
    """What a graph costs, with its latency if the budget limits it."""
    counts = count_costs(ChannelMap.of_whole(graph))
    if budget.latency is None:
        return counts
    milliseconds = measure_latency(build(graph), budget.batch_size, sizes=graph.sizes)
    return replace(counts, latency=milliseconds, batch_size=budget.batch_size)


def _small_enough(
    options: Sequence[Options],
    room: dict[str, float],
    reached: Callable[[list[int]], Counts],
    budget: Budget,
    original: Counts,
    edit: str,
) -> list[int]:
    """Bisect a limit on MACs for the closest choice that keeps limits on latency and memory."""
    whole = total_cost(options, [0] * len(options), "macs")
    high = min(room.get("macs", whole), whole)
    low = float(sum(o.costs["macs"].min() for o in options))
    best: list[int] | None = None
    for step in range(LATENCY_STEPS + 1):
        # The smallest first: where that is too slow, nothing else need be built.
        limit = low if step == 0 else (low + high) / 2
        rows = least_loss_within(options, {**room, "macs": limit})
        costs = None if rows is None else reached(rows)
        if costs is not None and budget.fits(costs, original):
            best, low = rows, limit
        elif step == 0:
            by = f"{edit} with the fewest MACs that it can reach"
            raise budget.unreachable(costs or original, original, by)
        else:
            high = limit
    assert best is not None
    return best
