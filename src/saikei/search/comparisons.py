"""Pairs of candidates that differ in one choice, compared on the same samples."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from saikei.runs.candidate import Candidate
from saikei.runs.front import goodness
from saikei.runs.record import Comparison, Decision
from saikei.scoring.labelled import Labelled, Outputs
from saikei.scoring.score import Difference

# What ships is the best of many on these samples. Of 20 candidates that are worth the same, the
# best is ahead of the original by so many standard errors in 0.4 % of simulated runs.
LUCK_OF_THE_BEST = 3.5

KEPT_OR_FRESH = "kept or fresh weights"
SHIPPED_OR_ORIGINAL = "shipped or original"

_NAMES: Mapping[str, tuple[str, str]] = {
    SHIPPED_OR_ORIGINAL: ("the shipped model", "the original"),
    KEPT_OR_FRESH: ("kept weights", "fresh weights"),
    "fused or best single": ("the fused model", "the best single model"),
    "learned or equal weights": ("learned weights", "equal weights"),
    "one network or its teachers": ("the one network", "the fused teachers"),
    "int8 or float": ("int8", "float"),
}

Pair = tuple[str, Candidate, Candidate]


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
    pairs = [(SHIPPED_OR_ORIGINAL, chosen, baseline)] if chosen is not baseline else []
    pairs += _counterparts(candidates)
    pairs += _fused(candidates)
    return tuple(_compared(*pair, outputs, judge) for pair in pairs)


def weight_decisions(comparisons: Sequence[Comparison]) -> tuple[Decision, ...]:
    """Whether kept or fresh weights are better, for each structure that was trained from both."""
    return tuple(
        Decision(
            f"weights of {c.first}",
            c.answer,
            f"{c.first} and {c.second} have the same structure; both remain candidates.",
        )
        for c in comparisons
        if c.question == KEPT_OR_FRESH
    )


def _counterparts(candidates: Sequence[Candidate]) -> Iterator[Pair]:
    """Candidates whose plan names the one that they differ from in one choice."""
    by_name = {c.name: c for c in candidates}
    for one in candidates:
        other = by_name.get(one.plan.get("like") or "")
        if other is None:
            continue
        if one.kind == "fresh" and other.kind == "kept":
            yield KEPT_OR_FRESH, other, one
        elif one.kind == "quantized":
            yield "int8 or float", one, other
        elif other.kind == "fused":
            yield "one network or its teachers", one, other


def _fused(candidates: Sequence[Candidate]) -> Iterator[Pair]:
    fused = [c for c in candidates if c.kind == "fused"]
    singles = [c for c in candidates if c.kind != "fused" and c.fits]
    if not fused or not singles:
        return
    yield "fused or best single", max(fused, key=_quality), max(singles, key=_quality)
    equal = {c.members: c for c in fused if c.family == "average" and not _learned(c)}
    for one in fused:
        if one.family == "average" and _learned(one) and one.members in equal:
            yield "learned or equal weights", one, equal[one.members]


def _learned(candidate: Candidate) -> bool:
    return len(set(candidate.weights)) > 1


def _quality(candidate: Candidate) -> tuple[float, float, str]:
    return goodness(candidate.validation), -candidate.validation.loss, candidate.name


def _beyond_luck(difference: Difference) -> bool:
    """Whether the best of many candidates is ahead by more than it would be by chance."""
    return abs(difference.value) > LUCK_OF_THE_BEST * difference.standard_error


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
    if question == SHIPPED_OR_ORIGINAL and difference.clear and not _beyond_luck(difference):
        answer = f"{winner}: better on the samples that chose it, which may be luck"
    return Comparison(question, first.name, second.name, difference, answer)
