"""What a team costs, estimated from the costs of its members, and whether the budget allows it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from math import ceil
from typing import Any

from saikei.budget import Budget
from saikei.runs.candidate import Cost

# A cascade's later members run on some rows only, so these costs have a mean over rows.
_PER_ROW = ("macs", "latency")
# Members run one after the other, so the peak of memory is that of the largest.
_PEAKS = ("activation_bytes", "memory")


@dataclass(frozen=True)
class Limits:
    """The limits of a budget as absolute numbers.

    Args:
        absolute: The limit of each limited cost, by its name.
        mean: Whether MACs and latency of a cascade are limited in the mean over rows, and not at
            their worst, when all members run.
    """

    absolute: Mapping[str, float]
    mean: bool

    @classmethod
    def of(cls, budget: Budget, whole: Cost) -> Limits:
        """The limits of a budget.

        Args:
            budget: The budget as given.
            whole: The cost that its shares refer to.
        """
        return cls(budget.limits(whole), getattr(budget, "count", "worst") == "mean")

    @property
    def axis(self) -> str:
        """The cost by which a cascade is planned: MACs, or what is limited instead of them."""
        return next((one for one in ("macs", *_PER_ROW) if one in self.absolute), "macs")

    def allow(self, cost: Cost, mean_cost: Cost | None = None) -> bool:
        """Whether a model keeps every limit.

        Args:
            cost: The cost when every member runs.
            mean_cost: Of a cascade the mean cost of a row; `None` for other models.
        """
        counted = mean_cost if self.mean and mean_cost is not None else cost
        return all(counted.on(name) <= limit for name, limit in self.absolute.items())

    def allow_mean(self, cost: Cost) -> bool:
        """Whether a member may run last in a cascade: every limit holds that has no mean."""
        exempt = _PER_ROW if self.mean else ()
        return all(
            cost.on(name) <= limit for name, limit in self.absolute.items() if name not in exempt
        )

    def left(self, cost: Cost, mean_cost: Cost | None = None) -> dict[str, float]:
        """For each limit the share that a model leaves unused."""
        counted = mean_cost if self.mean and mean_cost is not None else cost
        return {
            name: max(0.0, 1.0 - counted.on(name) / limit) for name, limit in self.absolute.items()
        }

    def part(self, count: int) -> Limits:
        """The limits that each of several equal members has to keep, so that all fit together."""
        return replace(self, absolute={n: limit / count for n, limit in self.absolute.items()})


def together(costs: Sequence[Cost]) -> Cost:
    """The cost of models side by side: sums, and of memory the largest.

    It is an upper bound: layers that members share are counted once in the built model.

    Args:
        costs: The cost of each model, at least one.
    """
    return _combined(costs, (1.0,) * len(costs))


def mean_of_cascade(costs: Sequence[Cost], shares: Sequence[float]) -> Cost:
    """The mean cost of a row in a cascade: all weights are there, but not all members run.

    Args:
        costs: The cost of each member.
        shares: For each member the share of rows that it sees, 0 to 1.
    """
    return _combined(costs, shares)


def with_head(cost: Cost, parameters: int) -> Cost:
    """The cost of a team whose head has weights of its own, each used once for a row.

    Args:
        cost: The cost of the members together.
        parameters: Number of the head's weights.
    """
    added: dict[str, Any] = {"params": cost.params + parameters, "macs": cost.macs + parameters}
    stored = getattr(cost, "bytes", None)
    if stored is not None:
        added["bytes"] = stored + 4 * parameters
    return replace(cost, **added)


def _combined(costs: Sequence[Cost], shares: Sequence[float]) -> Cost:
    made: dict[str, Any] = {}
    for one in fields(Cost):
        values = [getattr(cost, one.name) for cost in costs]
        if one.name == "batch_size" or any(value is None for value in values):
            made[one.name] = values[0] if one.name == "batch_size" else None
        elif one.name in _PEAKS:
            made[one.name] = max(values)
        elif one.name in _PER_ROW:
            total = sum(value * share for value, share in zip(values, shares, strict=True))
            made[one.name] = ceil(total - 1e-9) if isinstance(values[0], int) else total
        else:
            made[one.name] = sum(values)
    return Cost(**made)
