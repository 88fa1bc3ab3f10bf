"""The candidates of a run as rows of tables."""

from __future__ import annotations

from dataclasses import dataclass

from saikei.runs import numbers
from saikei.runs.candidate import KINDS, ORIGINALS, Candidate
from saikei.runs.record import Run


@dataclass(frozen=True)
class FrontRow:
    """One candidate in the table of all candidates."""

    name: str
    kind: str
    kind_text: str
    metric: str
    interval: str
    macs: str
    params: str
    latency: str
    share: str
    fits: bool
    optimal: bool
    chosen: bool
    original: bool


@dataclass(frozen=True)
class TrainedRow:
    """Scores of a candidate before and after its training."""

    name: str
    kind_text: str
    before: str
    after: str
    gain: str
    epochs: int
    seconds: str
    settings: str


def front_rows(run: Run) -> tuple[FrontRow, ...]:
    """All candidates, cheapest first, each marked Pareto-optimal or dominated."""
    whole = run.candidate(run.baseline).cost.on(run.cost_axis)
    ordered = sorted(run.candidates, key=lambda c: c.cost.on(run.cost_axis))
    return tuple(
        FrontRow(
            name=c.name,
            kind=c.kind,
            kind_text=kind_text(c),
            metric=numbers.metric_value(c.validation.name, c.validation.value),
            interval=numbers.interval(c.validation.name, c.validation.low, c.validation.high),
            macs=numbers.count(c.cost.macs),
            params=numbers.count(c.cost.params),
            latency=numbers.milliseconds(c.cost.latency),
            share=numbers.ratio(c.cost.on(run.cost_axis), whole),
            fits=c.fits,
            optimal=c.name in run.front,
            chosen=c.name == run.chosen,
            original=c.kind in ORIGINALS,
        )
        for c in ordered
    )


def trained_row(candidate: Candidate) -> TrainedRow:
    """The scores of a trained candidate before and after its training."""
    training, after = candidate.training, candidate.validation
    assert training is not None
    before = candidate.before
    settings = f"learning rate {training.learning_rate:.2g}"
    if training.teacher is not None:
        settings += f", temperature {training.temperature:.2g}, α {training.alpha:.2g}"
    return TrainedRow(
        name=candidate.name,
        kind_text=kind_text(candidate),
        before="–" if before is None else numbers.metric_value(before.name, before.value),
        after=numbers.metric_value(after.name, after.value),
        gain="–" if before is None else numbers.signed(after.name, after.value - before.value),
        epochs=training.epochs,
        seconds=numbers.duration(training.seconds),
        settings=settings,
    )


def kind_text(candidate: Candidate) -> str:
    """The kind of a candidate in words."""
    if candidate.kind == "fused":
        return f"{candidate.family} of {len(candidate.members)}"
    if candidate.kind in ("kept", "fresh") and candidate.family != candidate.kind:
        return f"{KINDS[candidate.kind]}, {candidate.family}"
    return KINDS[candidate.kind]
