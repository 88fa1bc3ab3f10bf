"""The result of `explain`: what each member is worth, and how the members compare."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import starmap
from typing import Any

import numpy as np

from saikei.batches import Array
from saikei.columns import Columns, InColumns
from saikei.judging.explaining.comparison import OutputComparison
from saikei.judging.explaining.removable import Loss
from saikei.scoring.score import Score

# Of more classes than that, those of the lowest recall are shown.
_CLASSES = 20


@dataclass(frozen=True)
class MemberPart:
    """What one member is worth. Gains and losses are in the unit of `Explanation.metric`.

    Args:
        name: The name of the member.
        alone: The score of this member alone.
        shapley: Its Shapley value: by how much it lowers the metric, averaged over the orders in
            which members can join. Above 0 it helps. The values of all members sum to
            `without_members - with_all`.
        error: The standard error of `shapley`, over rows.
        sampling_error: The standard error of `shapley` over the drawn orders; 0 where all
            coalitions were evaluated.
        without: The increase of the metric when this member alone is left out.
        weight: Its weight in a weighted mean, or the mean over folds where weights were fitted;
            `None` for other fusions.
        can_go: Whether it is among `Explanation.removable`.
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
class Explanation(InColumns):
    """What each member of a fusion is worth on data that no part of it was fitted to.

    Args:
        metric: What is gained and lost: `"log-loss"` (nats), `"squared error"` or `"loss"` (their
            sum over several outputs), or `"error rate"`, of which fewer is a higher accuracy.
        members: One entry for each member, in their order.
        fused: The score of the fusion of all members.
        with_all: The metric with all members.
        without_members: The metric without any member.
        removable: The members that can be removed together at no loss: the one that costs least
            first, as long as the metric of the others grows by less than one standard error, also
            against the best subset on the way.
        outputs: For each output, members and fusion compared.
        absence: How the fusion is computed without a member.
        orders: How many orders of joining were drawn; `None` where all coalitions were evaluated.
        class_names: Names of the classes of a single output; empty if they are unknown.
    """

    metric: str
    members: tuple[MemberPart, ...]
    fused: Score
    with_all: float
    without_members: float
    removable: Loss
    outputs: tuple[OutputComparison, ...] = field(repr=False)
    absence: str = field(repr=False)
    orders: int | None
    class_names: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "metric": self.metric,
            "members": [member.to_dict() for member in self.members],
            "fused": self.fused.to_dict(),
            "with_all": self.with_all,
            "without_members": self.without_members,
            "removable": self.removable.to_dict(),
            "outputs": [output.to_dict() for output in self.outputs],
            "absence": self.absence,
            "orders": self.orders,
            "class_names": list(self.class_names),
        }

    def _shown(self) -> list[str | Columns]:
        return _parts(self)


def _parts(explanation: Explanation) -> list[str | Columns]:
    """Sentences and tables; each ± is one standard error."""
    parts: list[str | Columns] = [_lead(explanation), _members(explanation), _verdict(explanation)]
    for index, view in enumerate(explanation.outputs, start=1):
        title = f"Output {index}: " if len(explanation.outputs) > 1 else ""
        classes = explanation.class_names if len(explanation.outputs) == 1 else ()
        parts += [*_pairs(title, view), *_strength(title, view, _numbers(explanation), classes)]
    return parts


def _lead(explanation: Explanation) -> str:
    count = len(explanation.members)
    how = (
        f"over all {2**count:,} coalitions"
        if explanation.orders is None
        else f"over {explanation.orders:,} drawn orders of joining"
    )
    gain = explanation.without_members - explanation.with_all
    return (
        f"Of the {explanation.metric}, {explanation.without_members:.4f} without members and "
        f"{explanation.with_all:.4f} with all {count}, the members gain {gain:.4f}. "
        f"Shapley values divide this gain, {how}.\nWithout a member, {explanation.absence}."
    )


def _members(explanation: Explanation) -> Columns:
    metric = explanation.fused.name.replace("_", " ")
    views = explanation.outputs
    calibrated = len(views) == 1 and bool(views[0].calibration)
    head = ["", "member", "weight", f"{metric} alone", "95 %", "Shapley", "loss without"]
    rows = [[*head, "calibration error"] if calibrated else head]
    fused = explanation.fused
    scores = [*(_member(*one) for one in enumerate(explanation.members, start=1))]
    scores.append(
        ["", "all", "", f"{fused.value:.4f}", f"[{fused.low:.4f}, {fused.high:.4f}]", "", ""]
    )
    if calibrated:
        errors = [f"{one.error:.4f}" for one in views[0].calibration]
        scores = [[*row, error] for row, error in zip(scores, errors, strict=True)]
    return Columns([*rows, *scores], right=range(2, len(rows[0])))


def _member(number: int, member: MemberPart) -> list[str]:
    drawn = f" (drawn: ± {member.sampling_error:.4f})" if member.sampling_error else ""
    return [
        str(number),
        member.name,
        "" if member.weight is None else f"{member.weight:.3f}",
        f"{member.alone.value:.4f}",
        f"[{member.alone.low:.4f}, {member.alone.high:.4f}]",
        f"{member.shapley:+.4f} ± {member.error:.4f}{drawn}",
        f"{member.without.more:+.4f} ± {member.without.error:.4f}",
    ]


def _verdict(explanation: Explanation) -> str:
    gone = explanation.removable
    if not gone.members:
        return (
            "No member can be removed: without any of them the loss grows by more than one "
            "standard error."
        )
    names = ", ".join(f"{i + 1} ({explanation.members[i].name})" for i in gone.members)
    change = "higher" if gone.more >= 0 else "lower"
    return (
        f"Can be removed together at no loss: {names}. Without them the loss is "
        f"{abs(gone.more):.4f} ± {gone.error:.4f} {change} than with all."
    )


def _pairs(title: str, view: OutputComparison) -> tuple[str, Columns]:
    numbers = view.kind == "regression"
    above = "correlation of predictions" if numbers else "share of equal predictions"
    below = "residuals" if numbers else "errors"
    count = len(view.agreement)
    cells = np.where(
        np.triu(np.ones((count, count), dtype=np.bool_), 1), view.agreement, view.error_correlation
    )
    names = [str(i + 1) for i in range(count)]
    rows = [["", *names]]
    for i, name in enumerate(names):
        rows.append([name, *(_cell(cells[i, j]) if i != j else "·" for j in range(count))])
    heading = f"{title}above the diagonal the {above}, below it the correlation of {below}"
    return heading.capitalize(), Columns(rows, right=range(1, count + 1))


def _strength(
    title: str, view: OutputComparison, names: Sequence[str], classes: Sequence[str]
) -> tuple[str, Columns]:
    numbers = view.kind == "regression"
    what = "squared error of each number" if numbers else "recall of each class"
    shown = _worst(view)
    if len(shown) < len(view.counts):
        what += f", of {len(view.counts)} the {len(shown)} of the lowest recall"
    rows = [["", "n", *names, "all"]]
    rows += [
        [
            _class(index, classes),
            f"{view.counts[index]:,}",
            *starmap(_cell, view.strength[:, [index]]),
        ]
        for index in shown
    ]
    return f"{title}{what}".capitalize(), Columns(rows, right=range(1, len(rows[0])))


def _class(index: int, classes: Sequence[str]) -> str:
    return classes[index] if index < len(classes) else str(index)


def _worst(view: OutputComparison) -> list[int]:
    fused = view.strength[-1] if view.kind != "regression" else -view.strength[-1]
    order = np.argsort(fused, kind="stable")  # NaN comes last
    return sorted(int(index) for index in order[:_CLASSES])


def _numbers(explanation: Explanation) -> list[str]:
    return [str(number) for number in range(1, len(explanation.members) + 1)]


def _cell(value: float | Array) -> str:
    return "-" if np.isnan(value) else f"{value:.3f}"
