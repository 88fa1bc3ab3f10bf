"""The report as data: the texts and figures of all sections, before they are rendered."""

from __future__ import annotations

import json
from dataclasses import dataclass

from saikei.report.answer import CostRow, Headline, cost_rows, headline_of, sizes_text
from saikei.report.candidates import FrontRow, TrainedRow, front_rows, trained_row
from saikei.report.effort import EffortRow, effort_rows, meanings_of, rungs_of, stage_times
from saikei.report.replay import replay
from saikei.report.tuning import SettingRow, setting_rows
from saikei.runs import numbers
from saikei.runs.candidate import LayerChange
from saikei.runs.record import LibraryRecord, MethodRecord, Run

Pairs = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class ChoiceRow:
    """Two candidates that differ in one choice, compared."""

    question: str
    first: str
    second: str
    difference: str
    clear: bool
    answer: str


@dataclass(frozen=True)
class MethodRow:
    """What one method offered, and what became of it."""

    name: str
    offered: str
    tried: str
    outcome: str
    kept: bool
    reason: str


@dataclass(frozen=True)
class LayerTable:
    """The channels of one trained model, layer by layer."""

    name: str
    parent: str
    rows: tuple[LayerChange, ...]


@dataclass(frozen=True)
class Report:
    """All sections, in the order in which they are read."""

    headline: Headline
    metric: str
    baseline: str
    validation_samples: int
    costs: tuple[CostRow, ...]
    front: tuple[FrontRow, ...]
    choices: tuple[ChoiceRow, ...]
    methods: tuple[MethodRow, ...]
    library: tuple[str, ...]
    rungs: tuple[str, ...]
    effort: tuple[EffortRow, ...]
    meanings: Pairs
    stages: Pairs
    trained: tuple[TrainedRow, ...]
    tuned: tuple[SettingRow, ...]
    layers: tuple[LayerTable, ...]
    decisions: Pairs
    recipes: Pairs
    replay: str
    facts: Pairs
    fingerprint: Pairs


def report_of(run: Run) -> Report:
    """The report of a run as data.

    Args:
        run: A finished run.
    """
    chosen, baseline = run.candidate(run.chosen), run.candidate(run.baseline)
    shipped = [run.candidate(name) for name in chosen.members] or [chosen]
    return Report(
        headline=headline_of(run, chosen, baseline),
        metric=baseline.validation.name,
        baseline=run.baseline,
        validation_samples=baseline.validation.n,
        costs=cost_rows(run, chosen, baseline),
        front=front_rows(run),
        choices=_choices(run),
        methods=tuple(_method(m) for m in run.methods),
        library=tuple(_library(name, one) for name, one in run.library.items()),
        rungs=tuple(f"to epoch {rung}" for rung in rungs_of(run)),
        effort=effort_rows(run),
        meanings=meanings_of(run),
        stages=stage_times(run),
        trained=tuple(trained_row(c) for c in run.candidates if c.training is not None),
        tuned=setting_rows(run),
        layers=tuple(LayerTable(c.name, c.parent or "", c.layers) for c in shipped if c.layers),
        decisions=tuple((f"{d.topic}: {d.choice}", d.reason) for d in run.decisions),
        recipes=tuple(
            (c.name, json.dumps(c.recipe, indent=2)) for c in shipped if c.recipe is not None
        ),
        replay=replay(run),
        facts=facts_of(run),
        fingerprint=tuple(sorted(run.fingerprint.items())),
    )


def _choices(run: Run) -> tuple[ChoiceRow, ...]:
    metric = run.candidate(run.baseline).validation.name
    return tuple(
        ChoiceRow(
            c.question,
            c.first,
            c.second,
            numbers.difference(metric, c.difference),
            c.difference.clear,
            c.answer,
        )
        for c in run.comparisons
    )


def _method(record: MethodRecord) -> MethodRow:
    outcome = "shipped" if record.kept else "tried" if record.tried else "not tried"
    return MethodRow(
        record.name,
        numbers.count(record.offered),
        numbers.count(record.tried),
        outcome,
        record.kept,
        record.reason,
    )


def _library(name: str, record: LibraryRecord) -> str:
    """What the library of one original holds, and how well it predicted, in a sentence or two."""
    lead = (
        f"{name}: {record.options:,} options were measured alone on {record.rows:,} held-out rows "
        f"in {numbers.duration(record.seconds)}, by the divergence of the output from the "
        f"original's, in {record.unit}."
    )
    if not record.structures:
        return lead
    ratios = sorted(real / predicted for predicted, real in record.structures if predicted > 0)
    middle = ratios[len(ratios) // 2] if ratios else 1.0
    correlation = record.rank_correlation
    ranked = (
        "" if correlation is None else f"; the rank correlation of the two is {correlation:.2f}"
    )
    return (
        f"{lead} Of {len(record.structures)} structures that combine options, the measured "
        f"divergence is {middle:.2f} times the predicted one in the median{ranked}."
    )


def facts_of(run: Run) -> Pairs:
    """Settings, versions and times of a run, each with its name."""
    settings = run.settings
    samples = ", ".join(
        f"{part} {n:,}" if n else f"{part} unknown" for part, n in run.samples.items()
    )
    limits = ", ".join(
        f"{numbers.COSTS[name]} ≤ "
        f"{numbers.milliseconds(v) if name == 'latency' else numbers.count(v)}"
        for name, v in settings.limits.items()
    )
    return (
        ("Budget", limits),
        ("Samples", samples),
        ("Methods", ", ".join(settings.methods)),
        ("Epochs of all trainings", f"{sum(e.epochs for e in run.effort)} of {settings.effort}"),
        ("Batch size of each training", str(settings.batch_size or "the dataset's own")),
        ("Seed", str(settings.seed)),
        *((("Costs are for inputs of", sizes_text(run)),) if settings.sizes else ()),
        ("Task", run.task),
        ("Started (UTC)", run.started[:19].replace("T", " ")),
        ("Time", numbers.duration(run.seconds)),
        *((name, version) for name, version in run.versions.items()),
    )
