"""An explanation as tables of plain text."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import starmap

import numpy as np

from saikei.batches import Array
from saikei.columns import in_columns
from saikei.judging.explaining.comparison import OutputView
from saikei.judging.explaining.explanation import Explanation, MemberPart

# Of more classes than that, those that the fusion knows worst are shown.
_CLASSES = 20


def text_of(explanation: Explanation) -> str:
    """The explanation for a reader; each ± is one standard error."""
    parts = [_lead(explanation), _members(explanation), _verdict(explanation)]
    for place, view in enumerate(explanation.outputs, start=1):
        title = f"Output {place}: " if len(explanation.outputs) > 1 else ""
        parts += [_pairs(title, view), _strength(title, view, _numbers(explanation))]
    return "\n\n".join(parts)


def _lead(explanation: Explanation) -> str:
    count = len(explanation.members)
    how = (
        f"over all {2**count:,} coalitions"
        if explanation.orders is None
        else f"over {explanation.orders:,} drawn orders of arrival"
    )
    gain = explanation.nobody - explanation.everybody
    return (
        f"Of the {explanation.metric}, {explanation.nobody:.4f} without members and "
        f"{explanation.everybody:.4f} with all {count}, the members take off {gain:.4f}. "
        f"Shapley values share it out, {how}.\nWhere a member is absent, {explanation.absence}."
    )


def _members(explanation: Explanation) -> str:
    metric = explanation.fused.name.replace("_", " ")
    views = explanation.outputs
    calibrated = len(views) == 1 and bool(views[0].calibration)
    head = ["", "member", "weight", f"{metric} alone", "95 %", "Shapley", "lost without"]
    rows = [[*head, "calibration error"] if calibrated else head]
    fused = explanation.fused
    scores = [*(_member(*one) for one in enumerate(explanation.members, start=1))]
    scores.append(
        ["", "all", "", f"{fused.value:.4f}", f"[{fused.low:.4f}, {fused.high:.4f}]", "", ""]
    )
    if calibrated:
        errors = [f"{one.error:.4f}" for one in views[0].calibration]
        scores = [[*row, error] for row, error in zip(scores, errors, strict=True)]
    return in_columns([*rows, *scores], right=range(2, len(rows[0])))


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
        return "No member can go: without any of them more is lost than one standard error."
    names = ", ".join(f"{i + 1} ({explanation.members[i].name})" for i in gone.members)
    change = "more" if gone.more >= 0 else "less"
    return (
        f"Can go together, at no loss: {names}. Without them {abs(gone.more):.4f} ± "
        f"{gone.error:.4f} {change} is lost than with all."
    )


def _pairs(title: str, view: OutputView) -> str:
    numbers = view.kind == "regression"
    above = "correlation of predictions" if numbers else "share of equal answers"
    below = "residuals" if numbers else "errors"
    count = len(view.agreement)
    cells = np.where(
        np.triu(np.ones((count, count), dtype=np.bool_), 1), view.agreement, view.error_correlation
    )
    names = [str(i + 1) for i in range(count)]
    rows = [["", *names]]
    for i, name in enumerate(names):
        rows.append([name, *(_cell(cells[i, j]) if i != j else "·" for j in range(count))])
    return (
        f"{title}above the diagonal the {above}, below it the correlation of {below}\n"
        f"{in_columns(rows, right=range(1, count + 1))}"
    ).capitalize()


def _strength(title: str, view: OutputView, names: Sequence[str]) -> str:
    numbers = view.kind == "regression"
    what = "squared error of each number" if numbers else "recall of each class"
    shown = _worst(view)
    if len(shown) < len(view.counts):
        what += f", of {len(view.counts)} the {len(shown)} that all together know worst"
    rows = [["", "n", *names, "all"]]
    rows += [
        [str(place), f"{view.counts[place]:,}", *starmap(_cell, view.strength[:, [place]])]
        for place in shown
    ]
    return f"{title}{what}\n{in_columns(rows, right=range(1, len(rows[0])))}".capitalize()


def _worst(view: OutputView) -> list[int]:
    fused = view.strength[-1] if view.kind != "regression" else -view.strength[-1]
    order = np.argsort(fused, kind="stable")  # NaN comes last
    return sorted(int(place) for place in order[:_CLASSES])


def _numbers(explanation: Explanation) -> list[str]:
    return [str(number) for number in range(1, len(explanation.members) + 1)]


def _cell(value: float | Array) -> str:
    return "-" if np.isnan(value) else f"{value:.3f}"
