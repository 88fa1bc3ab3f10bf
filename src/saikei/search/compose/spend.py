"""What an ensemble costs, estimated from its members' costs, and whether the budget allows it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from saikei.budget import Budget
from saikei.runs.candidate import Cost

# A cascade's later members run on some rows only, so these costs have a mean over rows.
PER_ROW = ("macs", "latency")
BYTES_PER_WEIGHT = 4


@dataclass(frozen=True)
class Limits:
    """A budget and what its shares refer to.

    Args:
        budget: The budget as given.
        whole: The cost that its shares refer to.
    """

    budget: Budget
    whole: Cost

    @cached_property
    def absolute(self) -> dict[str, float]:
        """The limits as absolute numbers, by the name of the cost."""
        return self.budget.limits(self.whole)

    @property
    def mean(self) -> bool:
        """Whether MACs or latency of cascades are limited in the mean over rows."""
        return self.budget.count == "mean" and any(name in self.absolute for name in PER_ROW)

    @property
    def axis(self) -> str:
        """The cost by which a cascade is planned: MACs, unless latency is limited and they not."""
        return next((one for one in PER_ROW if one in self.absolute), "macs")

    def allow(self, cost: Cost) -> bool:
        """Whether a model keeps every limit."""
        return self.budget.fits(cost, self.whole)

    def allow_last(self, cost: Cost) -> bool:
        """Whether a member may run last in a cascade: only limits without a mean have to hold."""
        exempt = PER_ROW if self.mean else ()
        return all(cost.on(name) <= self.absolute[name] for name in {*self.absolute} - {*exempt})

    def left(self, cost: Cost) -> dict[str, float]:
        """For each limit the share that a model leaves unused."""
        return {
            name: max(0.0, 1.0 - self.budget.cost(cost, name) / limit)
            for name, limit in self.absolute.items()
        }

    def allow_part(self, cost: Cost, count: int) -> bool:
        """Whether so many models of this cost keep every limit together."""
        return self.allow(together([cost] * count))


def together(costs: Sequence[Cost]) -> Cost:
    """The cost of models side by side: sums, and of memory the largest.

    It is an upper bound: layers that members share are counted once in the built model. Members
    run one after the other, so the peak of memory is that of the largest.

    Args:
        costs: The cost of each model, at least one.
    """
    timed = [one.latency for one in costs if one.latency is not None]
    return Cost(
        params=sum(one.params for one in costs),
        macs=sum(one.macs for one in costs),
        bytes=sum(one.bytes for one in costs),
        memory=max(one.memory for one in costs),
        latency=sum(timed) if len(timed) == len(costs) else None,
        batch_size=costs[0].batch_size,
    )


def of_cascade(costs: Sequence[Cost], shares: Sequence[float]) -> Cost:
    """The cost of a cascade, at its worst and in the mean over rows.

    Args:
        costs: The cost of each member.
        shares: For each member the share of rows that it sees, 0 to 1.
    """
    worst = together(costs)
    pairs = list(zip(costs, shares, strict=True))
    latency = None
    if worst.latency is not None:
        latency = sum((one.latency or 0.0) * share for one, share in pairs)
    return replace(
        worst, mean_macs=sum(one.macs * share for one, share in pairs), mean_latency=latency
    )


def with_head(cost: Cost, weights: int) -> Cost:
    """The cost of an ensemble whose head has weights of its own, each used once for a row.

    Args:
        cost: The cost of the members together.
        weights: Number of the head's weights.
    """
    return replace(
        cost,
        params=cost.params + weights,
        macs=cost.macs + weights,
        bytes=cost.bytes + BYTES_PER_WEIGHT * weights,
    )
