"""Which channels go first when importance is weighed against cost.

To lose the least importance for the cost saved is a knapsack problem. The greedy answer takes,
again and again, the channel that loses least for what it saves now: a channel is cheaper once its
neighbours have been cut, so what it saves is counted anew after each step.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from saikei.budget import Budget
from saikei.channels import BoolMask, ChannelGroup, ChannelMap
from saikei.costs.per_call import CallCosts, calls_of
from saikei.importance import Scores

# No group falls below this share of its channels while others can still give.
FLOOR = 0.05
# Wide networks give several channels at a time, so that they take at most this many steps.
STEPS = 400


def removal_order(
    channel_map: ChannelMap, groups: Sequence[ChannelGroup], scores: Scores, budget: Budget
) -> NDArray[np.int64]:
    """The channels in the order in which they go, the best bargains first.

    Args:
        channel_map: A graph with its channels.
        groups: The groups that may be cut.
        scores: The errors of the channels, in one unit for all groups.
        budget: The costs that should be saved. Parameters are used for bytes too, and MACs for
            a latency, which is not counted, and for memory.

    Returns:
        Channel numbers, all but those that have to stay.
    """
    path = _Path(channel_map, groups, scores, budget)
    for floor in (FLOOR, 0.0):
        while path.step(floor):
            pass
    return np.array(path.gone, dtype=np.int64)


class _Path:
    def __init__(
        self,
        channel_map: ChannelMap,
        groups: Sequence[ChannelGroup],
        scores: Scores,
        budget: Budget,
    ) -> None:
        self.map, self.groups, self.scores = channel_map, groups, scores
        self.weigh_params = budget.params is not None or budget.bytes is not None
        others = (budget.macs, budget.memory, budget.latency)
        self.weigh_macs = any(limit is not None for limit in others)
        self.keep: BoolMask = np.ones(channel_map.count, dtype=bool)
        self.gone: list[int] = []
        free = [group.channels[group.free] for group in groups]
        self.waiting = [list(c[np.argsort(scores[c], kind="stable")]) for c in free]
        self.batch = max(1, sum(map(len, free)) // STEPS)
        self.costs = CallCosts(channel_map)
        self.calls = calls_of(channel_map, groups)
        whole = [self.costs.of(index) for index in range(len(channel_map.graph.calls))]
        self.total = np.maximum(np.sum(whole, axis=0), 1.0)
        self.savings: dict[int, float] = {}

    def step(self, floor: float) -> bool:
        """Take away the best bargains; whether there were any."""
        offers: list[tuple[float, int, int]] = []
        for number, group in enumerate(self.groups):
            left = int(self.keep[group.channels].sum())
            spare = min(left - max(1, int(np.ceil(floor * group.size))), len(self.waiting[number]))
            if spare <= 0:
                continue
            saving = self._saving(number)
            some = self.waiting[number][: max(1, min(spare, group.size // 64))]
            # Where a channel saves nothing there is nothing to weigh: it goes last.
            offers += [(self.scores[c] / max(saving, 1e-12), number, int(c)) for c in some]
        if not offers:
            return False
        offers.sort()
        for _, number, channel in offers[: self.batch]:
            self.waiting[number].remove(channel)
            if self._may_go(number, channel):
                self.keep[channel] = False
                self.gone.append(channel)
                self._forget(number)
        return True

    def _may_go(self, number: int, channel: int) -> bool:
        return all(
            self.keep[channels].sum() - (channels == channel).sum() >= least
            for _, channels, least in self.groups[number].needs()
            if channel in channels
        )

    def _saving(self, number: int) -> float:
        """The share of the whole cost that the group's next channel saves."""
        if number not in self.savings:
            without = self.keep.copy()
            without[self.waiting[number][0]] = False
            saved = np.zeros(len(self.total))
            for index in self.calls[number]:
                saved += self.costs.of(index, self.keep) - self.costs.of(index, without)
            share = saved / self.total
            self.savings[number] = float(self.weigh_macs * share[0] + self.weigh_params * share[1])
        return self.savings[number]

    def _forget(self, number: int) -> None:
        touched = set(self.calls[number])
        for other in list(self.savings):
            if touched.intersection(self.calls[other]):
                del self.savings[other]
