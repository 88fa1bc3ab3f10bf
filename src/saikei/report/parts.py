"""The report as data: the texts and figures of each section, before they are rendered."""

from __future__ import annotations

import json
from dataclasses import dataclass

from saikei.report.replay import replay
from saikei.runs import numbers
from saikei.runs.candidate import COST_AXES, KINDS, ORIGINALS, Candidate, LayerChange
from saikei.runs.record import EffortRecord, LibraryRecord, MethodRecord, Run

Pairs = tuple[tuple[str, str], ...]

# Measured times of equal models differ by less than this.
_RISEN = 1.1


@dataclass(frozen=True)
class Headline:
    """The model to ship, its scores in one sentence, and the reason for the choice."""

    name: str
    kind: str
    sentence: str
    reason: str


@dataclass(frozen=True)
class CostRow:
    """One cost or score of the original and of the chosen model."""

    quantity: str
    original: str
    chosen: str
    change: str


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
class EffortRow:
    """Epochs that one family of candidates was trained, rung by rung, as texts and as bars."""

    family: str
    epochs: tuple[str, ...]
    total: str
    bars: tuple[tuple[float, str], ...]


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
    trained: tuple[TrainedRow, ...]
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
        headline=_headline(run, chosen, baseline),
        metric=baseline.validation.name,
        baseline=run.baseline,
        validation_samples=baseline.validation.n,
        costs=_costs(run, chosen, baseline),
        front=front_rows(run),
        choices=_choices(run),
        methods=tuple(_method(m) for m in run.methods),
        library=tuple(_library(name, one) for name, one in run.library.items()),
        rungs=tuple(f"to epoch {rung}" for rung in _rungs(run)),
        effort=_effort(run),
        trained=tuple(_trained(c) for c in run.candidates if c.training is not None),
        layers=tuple(LayerTable(c.name, c.parent or "", c.layers) for c in shipped if c.layers),
        decisions=tuple((f"{d.topic}: {d.choice}", d.reason) for d in run.decisions),
        recipes=tuple(
            (c.name, json.dumps(c.recipe, indent=2)) for c in shipped if c.recipe is not None
        ),
        replay=replay(run),
        facts=facts_of(run),
        fingerprint=tuple(sorted(run.fingerprint.items())),
    )


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


def kind_text(candidate: Candidate) -> str:
    """The kind of a candidate in words."""
    if candidate.kind == "fused":
        return f"{candidate.family} of {len(candidate.members)}"
    if candidate.kind in ("kept", "fresh") and candidate.family != candidate.kind:
        return f"{KINDS[candidate.kind]}, {candidate.family}"
    return KINDS[candidate.kind]


def _headline(run: Run, chosen: Candidate, baseline: Candidate) -> Headline:
    validation = chosen.validation
    parts = [f"{numbers.score(validation)} on validation"]
    if run.test is not None:
        name = validation.name
        parts.append(
            f"{numbers.score(run.test.chosen)} on test, where the original has "
            f"{numbers.metric_value(name, run.test.baseline.value)} "
            f"(difference {numbers.difference(name, run.test.difference)})"
        )
    else:
        parts.append(f"the original has {numbers.score(baseline.validation)}")
    share = numbers.ratio(chosen.cost.macs, baseline.cost.macs)
    params = numbers.ratio(chosen.cost.params, baseline.cost.params)
    sentence = (
        f"{_capital(validation.name)} {'; '.join(parts)}. "
        f"It costs {share} of the MACs and {params} of the parameters of the original"
        f"{f', for inputs of {_sizes(run)}' if run.settings.sizes else ''}."
        f"{_more(chosen, baseline)}"
    )
    reason = next((d.reason for d in run.decisions if d.topic == "what to ship"), "")
    return Headline(chosen.name, kind_text(chosen), sentence, reason)


def _more(chosen: Candidate, baseline: Candidate) -> str:
    """A sentence on the costs that have risen by more than latencies vary by chance, if any."""
    risen = []
    for axis in COST_AXES:
        before, after = getattr(baseline.cost, axis), getattr(chosen.cost, axis)
        if before and after and after > _RISEN * before:
            risen.append(f"{numbers.COSTS[axis]} ({numbers.ratio(after, before)})")
    return f" It takes more than the original in: {', '.join(risen)}." if risen else ""


def _capital(name: str) -> str:
    """A name from the record as the beginning of a line."""
    text = name.replace("_", " ")
    return text[:1].upper() + text[1:]


def _costs(run: Run, chosen: Candidate, baseline: Candidate) -> tuple[CostRow, ...]:
    rows: list[CostRow] = []
    for axis in COST_AXES:
        before, after = getattr(baseline.cost, axis), getattr(chosen.cost, axis)
        label = numbers.COSTS[axis]
        if axis == "latency":
            label = f"latency per batch of {chosen.cost.batch_size}"
        rows.append(
            CostRow(
                label if label.startswith("MACs") else _capital(label),
                numbers.cost(baseline.cost, axis),
                numbers.cost(chosen.cost, axis),
                numbers.ratio(after, before),
            )
        )
    name = chosen.validation.name
    change = chosen.validation.value - baseline.validation.value
    paired = next(
        (c.difference for c in run.comparisons if c.question == "shipped or original"), None
    )
    rows.append(
        CostRow(
            f"{_capital(name)}, validation (n = {chosen.validation.n:,})",
            numbers.score(baseline.validation),
            numbers.score(chosen.validation),
            numbers.difference(name, paired) if paired else numbers.signed(name, change),
        )
    )
    if run.test is not None:
        rows.append(
            CostRow(
                f"{_capital(name)}, test (n = {run.test.chosen.n:,})",
                numbers.score(run.test.baseline),
                numbers.score(run.test.chosen),
                numbers.difference(name, run.test.difference),
            )
        )
    return tuple(rows)


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


def _rungs(run: Run) -> tuple[int, ...]:
    return tuple(sorted({one.rung for one in run.effort}))


def _effort(run: Run) -> tuple[EffortRow, ...]:
    families = dict.fromkeys(one.family for one in run.effort)
    return tuple(
        EffortRow(
            family,
            tuple(
                _epochs([one for one in run.effort if (one.family, one.rung) == (family, rung)])
                for rung in _rungs(run)
            ),
            str(sum(one.epochs for one in run.effort if one.family == family)),
            _bars(run, family),
        )
        for family in families
    )


def _bars(run: Run, family: str) -> tuple[tuple[float, str], ...]:
    """For each rung the length of a bar, in percent of the longest family, and its text."""
    totals = [
        sum(one.epochs for one in run.effort if one.family == name)
        for name in {one.family for one in run.effort}
    ]
    bars = []
    for rung in _rungs(run):
        found = [one for one in run.effort if (one.family, one.rung) == (family, rung)]
        epochs = sum(one.epochs for one in found)
        candidates = sum(one.candidates for one in found)
        text = f"{family}, to epoch {rung}: {epochs} epochs of {candidates} candidates"
        bars.append((100 * epochs / max(max(totals), 1), text))
    return tuple(bars)


def _epochs(records: list[EffortRecord]) -> str:
    """Epochs and candidates of one cell of the table, such as "6 (3)"."""
    if not records:
        return "–"
    return f"{sum(one.epochs for one in records)} ({sum(one.candidates for one in records)})"


def _trained(candidate: Candidate) -> TrainedRow:
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


def _sizes(run: Run) -> str:
    """The input sizes that costs are counted for, if the models take inputs of any size."""
    shapes = run.settings.sizes.items()
    return ", ".join(f"{'×'.join(map(str, shape))} ({name})" for name, shape in shapes)


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
        *((("Costs are for inputs of", _sizes(run)),) if settings.sizes else ()),
        ("Task", run.task),
        ("Started (UTC)", run.started),
        ("Time", numbers.duration(run.seconds)),
        *((name, version) for name, version in run.versions.items()),
    )
