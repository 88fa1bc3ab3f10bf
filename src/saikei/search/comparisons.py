"""Pairs of candidates that differ in one choice, compared on the same samples."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from saikei.runs.candidate import Candidate
from saikei.runs.front import goodness
from saikei.runs.record import Comparison, Decision
from saikei.scoring.labelled import Labelled, Outputs


def compare_choices(
    candidates: Sequence[Candidate],
    outputs: Mapping[str, Outputs],
    judge: Labelled,
    chosen: Candidate,
    baseline: Candidate,
) -> tuple[Comparison, ...]:
    """Compare all pairs of candidates that differ in one choice.

    Args:
        candidates: All candidates of the run.
        outputs: Outputs of each candidate on the judge's samples, by name.
        judge: Scores outputs on the validation data.
        chosen: The candidate to ship.
        baseline: The original that it replaces.
    """
    pairs = [("shipped or original", chosen, baseline)] if chosen is not baseline else []
    pairs += _rivals(candidates)
    pairs += _averages(candidates)
    return tuple(
        _compared(question, first, second, outputs, judge) for question, first, second in pairs
    )


def weight_decisions(comparisons: Sequence[Comparison]) -> tuple[Decision, ...]:
    """For each architecture, a decision on whether pruned or fresh weights are better."""
    return tuple(
        Decision(
            f"weights of {c.first.split('-')[0]}",
            c.answer,
            f"{c.first} and {c.second} have the same structure and training; both remain "
            "candidates.",
        )
        for c in comparisons
        if c.question == PRUNED_OR_FRESH
    )


PRUNED_OR_FRESH = "pruned or fresh weights"
DISTILLED_OR_LABELS = "distilled or labels alone"

_NAMES: Mapping[str, tuple[str, str]] = {
    PRUNED_OR_FRESH: ("pruned weights", "fresh weights"),
    DISTILLED_OR_LABELS: ("distillation", "labels alone"),
    "average or best single": ("the average", "the best single model"),
    "learned or equal weights": ("learned weights", "equal weights"),
    "shipped or original": ("the shipped model", "the original"),
}

Pair = tuple[str, Candidate, Candidate]


def _rivals(candidates: Sequence[Candidate]) -> Iterator[Pair]:
    by_name = {c.name: c for c in candidates}
    for rival in candidates:
        like = rival.plan.get("like")
        if like is None or like not in by_name:
            continue
        question = PRUNED_OR_FRESH if rival.kind == "fresh" else DISTILLED_OR_LABELS
        yield question, by_name[like], rival


def _averages(candidates: Sequence[Candidate]) -> Iterator[Pair]:
    averages = [c for c in candidates if c.kind == "average"]
    singles = [c for c in candidates if c.kind != "average" and c.fits]
    if not averages or not singles:
        return
    best = max(singles, key=_quality)
    yield "average or best single", max(averages, key=_quality), best
    for average in averages:
        equal = [
            c for c in averages if c.members == average.members and c.plan.get("weights") == "equal"
        ]
        if average.plan.get("weights") == "learn" and equal:
            yield "learned or equal weights", average, equal[0]


def _quality(candidate: Candidate) -> tuple[float, float, str]:
    return goodness(candidate.validation), -candidate.validation.loss, candidate.name


def _compared(
    question: str,
    first: Candidate,
    second: Candidate,
    outputs: Mapping[str, Outputs],
    judge: Labelled,
) -> Comparison:
    difference = judge.difference(outputs[first.name], outputs[second.name])
    ahead = (difference.value > 0) == first.validation.greater_is_better
    winner = _NAMES[question][0 if ahead else 1]
    answer = f"{winner}: better" if difference.clear else "no clear difference"
    return Comparison(question, first.name, second.name, difference, answer)
