"""The widest cut that a budget allows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace

import numpy as np

from saikei.budget import Budget
from saikei.channels import BoolMask, ChannelGroup, ChannelMap
from saikei.costs import Counts, check_countable, count_costs, measure_latency
from saikei.edits.allocation import keep_uniformly
from saikei.edits.attention_heads import groups_of_heads
from saikei.edits.cut import cut
from saikei.errors import BudgetError
from saikei.graph import Graph, build
from saikei.importance import Scores

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


def uniform_within(
    channel_map: ChannelMap,
    groups: Sequence[ChannelGroup],
    scores: Scores,
    budget: Budget,
    multiple_of: int,
) -> BoolMask:
    """The largest uniform cut within a budget, in which heads may keep another share than the rest.

    As there are few heads, one share for all might leave much of the budget. So it is also tried to
    keep one head more, and less of the rest; of the two, the cut is taken whose groups keep the
    larger share in the geometric mean.

    Args:
        channel_map: A graph with its channels.
        groups: The groups that may be cut.
        scores: Importance of each channel.
        budget: The limits; shares are of this graph.
        multiple_of: As in `keep_uniformly`.

    Raises:
        BudgetError: When even the smallest cut is too large.
    """

    def within(heads_keep: float | None) -> BoolMask:
        return largest_within(
            channel_map,
            budget,
            lambda keep: keep_uniformly(channel_map, groups, scores, keep, multiple_of, heads_keep),
        )

    def mean_share(mask: BoolMask) -> float:
        return float(np.mean([np.log(mask[group.channels].mean()) for group in groups]))

    best = within(None)
    heads = min(groups_of_heads(channel_map, groups), key=lambda group: group.size, default=None)
    if heads is None or best[heads.channels].all():
        return best
    with suppress(BudgetError):
        other = within((best[heads.channels].sum() + 1) / heads.size)
        best = max(best, other, key=mean_share)
    return best


def _costs(channel_map: ChannelMap, mask: BoolMask | None, budget: Budget) -> Counts:
    counts = count_costs(channel_map, mask)
    if budget.latency is None:
        return counts
    graph: Graph = channel_map.graph if mask is None else cut(channel_map, mask)
    milliseconds = measure_latency(build(graph), budget.batch_size, sizes=graph.sizes)
    return replace(counts, latency=milliseconds, batch_size=budget.batch_size)
