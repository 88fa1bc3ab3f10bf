"""Two runs side by side: their shipped models, and the settings that differ."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from saikei.columns import in_columns
from saikei.errors import InputError
from saikei.report.candidates import kind_text
from saikei.report.parts import facts_of
from saikei.runs import numbers
from saikei.runs.candidate import COST_AXES
from saikei.runs.record import Run

Rows = tuple[tuple[str, str, str], ...]

_SAME_DATA = "Both runs used the same data."
_OTHER_DATA = (
    "The runs used different data, so a difference between their scores may come from the data."
)


@dataclass(frozen=True)
class RunComparison:
    """Two runs side by side; printed, it is two tables.

    Args:
        names: Names of the runs.
        winners: Quantities of the shipped models, one row each: name, first run, second run.
        settings: Settings and facts of the runs that differ, in rows of the same form.
        data: Whether both runs used the same data, as a sentence.
    """

    names: tuple[str, str]
    winners: Rows
    settings: Rows
    data: str

    def __str__(self) -> str:
        tables = [
            in_columns([(title, *self.names), *rows], right=(1, 2) if title == "shipped" else ())
            for title, rows in (("shipped", self.winners), ("setting", self.settings))
            if rows
        ]
        return "\n\n".join([*tables, self.data])


def compare_runs(runs: Mapping[str, Run]) -> RunComparison:
    """Compare two runs.

    Args:
        runs: Two finished runs by name.

    Raises:
        InputError: If they have different metrics.
    """
    (first_name, first), (second_name, second) = runs.items()
    metrics = [run.candidate(run.baseline).validation.name for run in (first, second)]
    if metrics[0] != metrics[1]:
        raise InputError(
            f"The runs have different metrics ({metrics[0]} and {metrics[1]}), which cannot be "
            "compared: give runs of the same task."
        )
    one, two = _shipped(first), _shipped(second)
    same = first.fingerprint.get("data") == second.fingerprint.get("data")
    return RunComparison(
        (first_name, second_name),
        tuple((name, one[name], two[name]) for name in one),
        _differing(dict(facts_of(first)), dict(facts_of(second))),
        _SAME_DATA if same else _OTHER_DATA,
    )


def _shipped(run: Run) -> dict[str, str]:
    """Name, scores and costs of the shipped model."""
    chosen, baseline = run.candidate(run.chosen), run.candidate(run.baseline)
    metric = chosen.validation.name.replace("_", " ")
    values = {
        "model": f"{chosen.name} ({kind_text(chosen)})",
        f"{metric}, validation": numbers.score(chosen.validation),
        f"{metric}, test": "–" if run.test is None else numbers.score(run.test.chosen),
        f"{metric} of the original, validation": numbers.score(baseline.validation),
    }
    for axis in COST_AXES:
        share = numbers.ratio(getattr(chosen.cost, axis), getattr(baseline.cost, axis))
        values[numbers.COSTS[axis]] = f"{numbers.cost(chosen.cost, axis)} ({share})"
    values["epochs of all trainings"] = numbers.count(sum(e.epochs for e in run.effort))
    return values


def _differing(first: Mapping[str, str], second: Mapping[str, str]) -> Rows:
    names = dict.fromkeys([*first, *second])
    pairs = [(name, first.get(name, "–"), second.get(name, "–")) for name in names]
    return tuple(row for row in pairs if row[1] != row[2])
