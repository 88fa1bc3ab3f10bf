"""The answer of `explain`: what each member is worth, and how the members compare."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from saikei.judging.explaining.comparison import OutputView
from saikei.judging.explaining.removable import Loss
from saikei.scoring.score import Score


@dataclass(frozen=True)
class MemberPart:
    """What one member is worth. Gains and losses are in the unit of `Explanation.metric`.

    Args:
        name: of the member.
        alone: its score without the others.
        shapley: what it gains, averaged over the orders in which members can arrive: above 0 it
            helps. Over all members, with the sum `nobody - everybody`.
        error: the standard error of `shapley`, over rows.
        sampling_error: likewise, over the drawn orders; 0 where all coalitions were asked.
        without: what is lost when it alone leaves.
        weight: in a weighted mean; the mean over folds, where weights were fitted.
        can_go: whether it is among `Explanation.removable`.
    """

    name: str
    alone: Score
    shapley: float
    error: float
    sampling_error: float
    without: Loss
    weight: float | None
    can_go: bool

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "name": self.name,
            "alone": self.alone.to_dict(),
            "shapley": self.shapley,
            "error": self.error,
            "sampling_error": self.sampling_error,
            "without": self.without.to_dict(),
            "weight": self.weight,
            "can_go": self.can_go,
        }


@dataclass(frozen=True, eq=False)
class Explanation:
    """What each member of a fusion is worth on data that no part of it was fitted to.

    Args:
        metric: what is gained and lost: `"log-loss"` (nats), `"squared error"` or `"loss"` (their
            sum over several outputs), or `"error rate"`, of which fewer is a higher accuracy.
        members: in their order.
        fused: the score of all together.
        everybody: the metric with all members.
        nobody: the metric without any.
        removable: the members that can go together at no loss: they went one by one, the one
            that cost least first, as long as the others lost less than one standard error
            against the best team on the way.
        outputs: for each output, members and fusion side by side.
        absence: what it means that a member is absent.
        orders: how many orders of arrival were drawn; `None` where all coalitions were asked.
    """

    metric: str
    members: tuple[MemberPart, ...]
    fused: Score
    everybody: float
    nobody: float
    removable: Loss
    outputs: tuple[OutputView, ...] = field(repr=False)
    absence: str = field(repr=False)
    orders: int | None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "metric": self.metric,
            "members": [member.to_dict() for member in self.members],
            "fused": self.fused.to_dict(),
            "everybody": self.everybody,
            "nobody": self.nobody,
            "removable": self.removable.to_dict(),
            "outputs": [output.to_dict() for output in self.outputs],
            "absence": self.absence,
            "orders": self.orders,
        }

    def __str__(self) -> str:
        from saikei.judging.explaining.text import text_of

        return text_of(self)
