"""The data of the charts, which the page's own script draws."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from saikei.report.candidates import kind_text
from saikei.report.tuning import settings_of
from saikei.runs import numbers
from saikei.runs.candidate import COST_AXES, KINDS, Candidate
from saikei.runs.details import Calibration, Details
from saikei.runs.front import pareto_front
from saikei.runs.record import Run

Chart = Mapping[str, Any]


def charts_of(run: Run, details: Details) -> dict[str, Chart]:
    """All charts of a report by name, as values for JSON.

    Args:
        run: A finished run.
        details: What is shown besides its record.
    """
    return {
        "front": front_chart(run),
        "choices": choices_chart(run),
        "training": training_chart(run),
        "library": library_chart(run),
        "slider": slider_chart(run, details),
        "calibration": _calibration_chart(details),
        "sensitivity": sensitivity_chart(details),
        "settings": settings_chart(run),
    }


def front_chart(run: Run) -> Chart:
    """Metric against each cost, one point for each candidate, with the Pareto front."""
    axes = [run.cost_axis, *(a for a in COST_AXES if a != run.cost_axis)]
    axes = [
        a for a in axes if all(c.cost.latency is not None or a != "latency" for c in run.candidates)
    ]
    metric = run.candidate(run.baseline).validation.name
    return {
        "axes": [_axis(run, axis) for axis in axes],
        "label": f"{metric.replace('_', ' ')} on validation{_suffix(metric)}",
        "kinds": {
            kind: KINDS[kind] for kind in KINDS if any(c.kind == kind for c in run.candidates)
        },
        "points": [_point(run, candidate, axes) for candidate in run.candidates],
    }


def _axis(run: Run, axis: str) -> dict[str, Any]:
    unit = f" (ms per batch of {run.candidate(run.baseline).cost.batch_size})"
    return {
        "name": axis,
        "label": numbers.COSTS[axis] + (unit if axis == "latency" else ""),
        "limit": run.settings.limits.get(axis),
        "front": [[c.cost.on(axis), _shown(c)[0]] for c in pareto_front(run.candidates, axis)],
    }


def _point(run: Run, candidate: Candidate, axes: list[str]) -> dict[str, Any]:
    value, low, high = _shown(candidate)
    return {
        "name": candidate.name,
        "kind": candidate.kind,
        "x": {axis: candidate.cost.on(axis) for axis in axes},
        "y": value,
        "low": low,
        "high": high,
        "strong": candidate.name in (*run.front, run.chosen),
        "chosen": candidate.name == run.chosen,
        "text": _hover(run, candidate),
    }


def _shown(candidate: Candidate) -> tuple[float, float, float]:
    """The metric and its interval, in percent for a share."""
    score = candidate.validation
    factor = 100.0 if numbers.is_share(score.name) else 1.0
    return factor * score.value, factor * score.low, factor * score.high


def _suffix(metric: str) -> str:
    return " (%)" if numbers.is_share(metric) else ""


def _hover(run: Run, candidate: Candidate) -> list[str]:
    """Lines about a candidate, its name first."""
    baseline = run.candidate(run.baseline).cost
    cost = candidate.cost
    state = "Pareto-optimal" if candidate.name in run.front else "dominated"
    macs, params = (
        numbers.ratio(getattr(cost, one), getattr(baseline, one)) for one in ("macs", "params")
    )
    return [
        f"{candidate.name} · {kind_text(candidate)}",
        f"{candidate.validation.name} {numbers.score(candidate.validation)}",
        f"{numbers.count(cost.macs)} MACs ({macs})",
        f"{numbers.count(cost.params)} parameters ({params})",
        f"{numbers.milliseconds(cost.latency)} per batch of {cost.batch_size}",
        f"{state}, {'fits' if candidate.fits else 'does not fit'} the budget",
    ]


def choices_chart(run: Run) -> Chart:
    """Paired differences with their intervals, one row for each comparison."""
    score = run.candidate(run.baseline).validation
    factor = 100.0 if numbers.is_share(score.name) else 1.0
    better = "first is better" if score.greater_is_better else "first is worse"
    return {
        "label": f"difference in {numbers.unit(score.name)}, 95 % interval "
        f"(right of zero: {better})",
        "rows": [
            {
                "name": f"{c.first} − {c.second}",
                "value": factor * c.difference.value,
                "low": factor * c.difference.low,
                "high": factor * c.difference.high,
                "clear": c.difference.clear,
                "good": (c.difference.value > 0) == score.greater_is_better,
                "text": [c.question, numbers.difference(score.name, c.difference)],
            }
            for c in run.comparisons
        ],
    }


def training_chart(run: Run) -> Chart:
    """Logged metrics after each epoch, one line for each trained candidate."""
    trained = [c for c in run.candidates if c.training is not None and c.training.curves]
    shipped = {run.chosen, *run.candidate(run.chosen).members}
    return {
        "views": [
            {"name": key, "label": _curve_label(key), "share": numbers.is_share(key)}
            for key in _curve_keys(trained)
        ],
        "lines": [
            {
                "name": c.name,
                "kind": c.kind,
                "strong": c.name in shipped,
                "values": {key: _gaps(v) for key, v in c.training.curves.items()},
            }
            for c in trained
            if c.training is not None
        ],
    }


def _curve_keys(trained: list[Candidate]) -> list[str]:
    """Names of the logged metrics, the validation metric first."""
    found: dict[str, None] = {}
    for candidate in trained:
        assert candidate.training is not None
        found.update(dict.fromkeys(candidate.training.curves))
    metric = trained[0].validation.name if trained else ""
    # Keras's distiller logs its loss twice.
    wanted = [key for key in found if key not in ("learning_rate", "total_loss")]
    first = [f"val_{metric}", "val_loss", metric, "loss"]
    return [k for k in first if k in wanted] + sorted(k for k in wanted if k not in first)


def _curve_label(key: str) -> str:
    name = key.removeprefix("val_").replace("_", " ")
    return f"{name}, validation" if key.startswith("val_") else f"{name}, training"


def _gaps(values: Iterable[float]) -> list[float | None]:
    """Values for JSON, which has no infinity: the line gets a gap instead."""
    return [round(value, 6) if math.isfinite(value) else None for value in values]


def library_chart(run: Run) -> Chart:
    """Predicted against measured divergence of the structures that were measured."""
    return {
        "unit": next((one.unit for one in run.library.values()), ""),
        "points": [
            [predicted, real]
            for one in run.library.values()
            for predicted, real in one.structures
            if math.isfinite(predicted) and math.isfinite(real)
        ],
    }


def slider_chart(run: Run, details: Details) -> Chart:
    """The predicted front of the baseline, or of the first given model that has one."""
    fronts = details.fronts
    name = run.baseline if run.baseline in fronts else next(iter(fronts), "")
    if not name or not any(fronts[name].points.values()):
        return {"points": []}
    front = fronts[name]
    axis = next(iter(front.points))
    metric = run.candidate(run.baseline).validation.name
    return {
        "axis": axis,
        "label": numbers.COSTS[axis],
        "unit": front.unit,
        "original": front.original,
        "name": name,
        "points": [
            {"costs": point.costs, "loss": point.loss, "changes": point.changes}
            for point in front.points[axis]
        ],
        "measured": [
            {
                "name": c.name,
                "cost": c.cost.on(axis),
                "metric": numbers.metric_value(metric, c.validation.value),
                "value": c.validation.value
                if c.validation.greater_is_better
                else -c.validation.value,
            }
            for c in run.candidates
        ],
        "metric": metric.replace("_", " "),
    }


def sensitivity_chart(details: Details) -> Chart:
    """Divergence against saved cost for each layer or block of the original, by method."""
    found = details.sensitivity
    if found is None:
        return {"lines": []}
    methods = dict.fromkeys(curve.method for curve in found.curves)
    return {
        "x": f"{numbers.COSTS[found.cost]} saved (%)",
        "label": f"divergence ({found.unit})",
        "power": True,
        "views": [{"name": one, "label": one.replace("_", " ")} for one in methods],
        "lines": [
            {
                "name": curve.site.partition(":")[2] or curve.site,
                "view": curve.method,
                "points": [
                    [share, loss, change]
                    for (share, loss), change in zip(curve.points, curve.changes, strict=True)
                ],
            }
            for curve in found.curves
        ],
    }


def settings_chart(run: Run) -> Chart:
    """Training settings that differ between trained candidates, with their metric."""
    trained = [(c, settings_of(c)) for c in run.candidates if c.training is not None]
    names = dict.fromkeys(name for _, settings in trained for name in settings)
    varied = [n for n in names if len({repr(settings.get(n)) for _, settings in trained}) > 1]
    metric = run.candidate(run.baseline).validation.name
    return {
        "axes": varied,
        "metric": metric.replace("_", " ") + _suffix(metric),
        "lines": [
            {
                "name": candidate.name,
                "kind": candidate.kind,
                "strong": candidate.name in (*run.front, run.chosen),
                "values": [settings.get(name) for name in varied],
                "y": _shown(candidate)[0],
            }
            for candidate, settings in trained
        ],
    }


def _calibration_chart(details: Details) -> Chart:
    outcome = details.outcome
    if outcome is None:
        return {"lines": []}
    return {
        "lines": [_bins("original", outcome.before), _bins("to ship", outcome.after)],
    }


def _bins(name: str, calibration: Calibration) -> dict[str, Any]:
    return {"name": name, "bins": calibration.bins}
