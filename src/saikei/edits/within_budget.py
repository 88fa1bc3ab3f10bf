"""The widest cut that a budget allows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from saikei.budget import Budget
from saikei.channels import BoolMask, ChannelMap
from saikei.costs import Counts, check_countable, count_costs, measure_latency
from saikei.edits.cut import cut
from saikei.graph import Graph, build

# Shares are halved this often: 2⁻¹² of a channel axis is less than one channel of any layer.
STEPS = 12
# Each step of a latency budget builds and times a model.
LATENCY_STEPS = 6


def largest_within(
    channel_map: ChannelMap, budget: Budget, mask_for: Callable[[float | int], BoolMask]
) -> BoolMask:
    """Bisect the kept share for the largest cut graph that keeps the budget.

    Args:
        channel_map: A graph with its channels.
        budget: The limits; shares are of this graph.
        mask_for: Function from a kept share, 0 to 1, to the mask of the channels that stay.

    Raises:
        BudgetError: When even the smallest cut is too large; the message has how small that is.
    """
    check_countable(channel_map.graph, budget)
    timed = budget.latency is not None
    original = _costs(channel_map, None, budget)
    if budget.fits(original, original):
        return mask_for(1.0)
    low, high = 0.0, 1.0
    # The smallest share that is a share: one channel of each layer.
    best = mask_for(2.0**-30)
    smallest = _costs(channel_map, best, budget)
    if not budget.fits(smallest, original):
        raise budget.unreachable(smallest, original, "cutting channels")
    for _ in range(LATENCY_STEPS if timed else STEPS):
        share = (low + high) / 2
        mask = mask_for(share)
        if budget.fits(_costs(channel_map, mask, budget), original):
            low, best = share, mask
        else:
            high = share
    return best


def _costs(channel_map: ChannelMap, mask: BoolMask | None, budget: Budget) -> Counts:
    counts = count_costs(channel_map, mask)
    if budget.latency is None:
        return counts
    graph: Graph = channel_map.graph if mask is None else cut(channel_map, mask)
    milliseconds = measure_latency(build(graph), budget.batch_size, sizes=graph.sizes)
    return replace(counts, latency=milliseconds, batch_size=budget.batch_size)
