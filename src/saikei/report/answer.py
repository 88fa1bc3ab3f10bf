"""The answer of a run as data: the model to ship, its scores, and what it costs."""

from __future__ import annotations

from dataclasses import dataclass

from saikei.report.candidates import kind_text
from saikei.runs import numbers
from saikei.runs.candidate import COST_AXES, Candidate
from saikei.runs.record import CLASS_OF_RESULT, WHAT_TO_SHIP, Run

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


def headline_of(run: Run, chosen: Candidate, baseline: Candidate) -> Headline:
    """The shipped model with its scores and costs in one sentence, and the reason for it."""
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
        f"{f', for inputs of {sizes_text(run)}' if run.settings.sizes else ''}."
        f"{_more(chosen, baseline)}{_unlabelled(run)}"
    )
    topics = (WHAT_TO_SHIP, CLASS_OF_RESULT)
    reasons = [decision.reason for decision in run.decisions if decision.topic in topics]
    return Headline(chosen.name, kind_text(chosen), sentence, " ".join(reasons))


def _unlabelled(run: Run) -> str:
    """A sentence on what scores mean where the data had no labels."""
    return "".join(f" {d.reason}" for d in run.decisions if d.topic == "labels")


def _more(chosen: Candidate, baseline: Candidate) -> str:
    """A sentence on the costs that have risen by more than latencies vary by chance, if any."""
    risen = []
    for axis in COST_AXES:
        before, after = getattr(baseline.cost, axis), getattr(chosen.cost, axis)
        if before and after and after > _RISEN * before:
            risen.append(f"{numbers.COSTS[axis]} ({numbers.ratio(after, before)})")
    return f" It takes more than the original in: {', '.join(risen)}." if risen else ""


def cost_rows(run: Run, chosen: Candidate, baseline: Candidate) -> tuple[CostRow, ...]:
    """Costs and scores of the original and of the chosen model, one row for each."""
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


def _capital(name: str) -> str:
    """A name from the record as the beginning of a line."""
    text = name.replace("_", " ")
    return text[:1].upper() + text[1:]


def sizes_text(run: Run) -> str:
    """The input sizes that costs are counted for, if the models take inputs of any size."""
    shapes = run.settings.sizes.items()
    return ", ".join(f"{'×'.join(map(str, shape))} ({name})" for name, shape in shapes)
