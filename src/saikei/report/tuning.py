"""Training settings of the candidates, and how much the metric depends on each of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from saikei.runs.candidate import Candidate
from saikei.runs.record import Run

Value = str | float | None

# Fewer candidates show no relation between a setting and the metric.
_FEWEST = 5


@dataclass(frozen=True)
class SettingRow:
    """A training setting that was varied.

    Args:
        name: Its name.
        values: The values that were tried, as text.
        share: Share of the variance of the metric that goes with the setting, from ranks where it
            is a number and from the means of its values otherwise; `None` for too few candidates.
    """

    name: str
    values: str
    share: float | None


def settings_of(candidate: Candidate) -> dict[str, Value]:
    """The training settings of a candidate; none for one that was not trained."""
    training = candidate.training
    if training is None:
        return {}
    given = candidate.plan.get("settings")
    plain = given if isinstance(given, Mapping) else {}
    found: dict[str, Value] = {
        str(name): value
        for name, value in plain.items()
        if value is None or isinstance(value, (str, int, float))
    }
    found["learning_rate"] = training.learning_rate
    if training.teacher is not None:
        found |= {"temperature": training.temperature, "alpha": training.alpha}
    return found


def setting_rows(run: Run) -> tuple[SettingRow, ...]:
    """The settings that differ between candidates that were trained to the end of their rung.

    Args:
        run: A finished run.
    """
    trained = [c for c in run.candidates if c.training is not None]
    each = [settings_of(c) for c in trained]
    names = dict.fromkeys(name for settings in each for name in settings)
    scores = [c.validation.value for c in trained]
    rows = []
    for name in names:
        values = [settings.get(name) for settings in each]
        distinct = list(dict.fromkeys(values))
        if len(distinct) > 1:
            shown = sorted(distinct, key=lambda v: (isinstance(v, str), v is None, v or 0))
            rows.append(SettingRow(name, _listed(shown), _share(values, scores)))
    return tuple(sorted(rows, key=lambda row: -(row.share or 0)))


def _share(values: Sequence[Value], scores: Sequence[float]) -> float | None:
    if len(values) < _FEWEST:
        return None
    y = np.argsort(np.argsort(scores, kind="stable"), kind="stable").astype(float)
    if np.ptp(scores) == 0:
        return None
    if all(isinstance(value, (int, float)) for value in values):
        numbers = np.array(values, dtype=float)
        x = np.argsort(np.argsort(numbers, kind="stable"), kind="stable").astype(float)
        for number in np.unique(numbers):
            x[numbers == number] = x[numbers == number].mean()
        return float(np.corrcoef(x, y)[0, 1] ** 2) if np.ptp(x) else None
    texts = np.array([repr(value) for value in values])
    means = np.array([y[texts == text].mean() for text in texts])
    return float(means.var() / y.var())


def _listed(values: Sequence[Value]) -> str:
    texts = ["–" if v is None else v if isinstance(v, str) else f"{v:.3g}" for v in values]
    return ", ".join(dict.fromkeys(texts)) if len(texts) <= 6 else f"{texts[0]} to {texts[-1]}"
