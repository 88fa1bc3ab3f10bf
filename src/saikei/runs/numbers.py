"""Format numbers for reports: percent, points, counts and ratios."""

from __future__ import annotations

from saikei.runs.candidate import Cost
from saikei.scoring.score import Difference, Score

MINUS = "\N{MINUS SIGN}"
COSTS = {
    "macs": "MACs per sample",
    "params": "parameters",
    "bytes": "bytes of weights",
    "memory": "activation bytes per sample",
    "latency": "latency",
}


def is_share(metric: str) -> bool:
    """Whether a metric is a share of 1, shown in percent."""
    return metric.endswith("accuracy")


def metric_value(metric: str, value: float) -> str:
    """A metric's value: "98.31 %" for a share, four digits otherwise."""
    return f"{100 * value:.2f} %" if is_share(metric) else f"{value:.4g}"


def interval(metric: str, low: float, high: float) -> str:
    """A 95 % interval of a metric, in the unit of `metric_value`."""
    if is_share(metric):
        return f"[{100 * low:.1f}, {100 * high:.1f}]"
    return f"[{low:.3g}, {high:.3g}]"


def score(value: Score) -> str:
    """A score with its interval."""
    return f"{metric_value(value.name, value.value)} {interval(value.name, value.low, value.high)}"


def amount(metric: str, value: float) -> str:
    """Size of a difference of metrics: "0.28 points" for a share."""
    return f"{signed(metric, abs(value)).removeprefix('+')} {unit(metric)}"


def signed(metric: str, value: float) -> str:
    """A difference of metrics with its sign: "+0.28" (in points) for a share."""
    number = f"{100 * abs(value):.2f}" if is_share(metric) else f"{abs(value):.3g}"
    zero = float(number) == 0
    return number if zero else f"{'+' if value > 0 else MINUS}{number}"


def unit(metric: str) -> str:
    """Unit of differences of the metric."""
    return "points" if is_share(metric) else metric


def difference(metric: str, value: Difference) -> str:
    """A paired difference with its unit and interval."""
    return (
        f"{signed(metric, value.value)} {unit(metric)} "
        f"[{signed(metric, value.low)}, {signed(metric, value.high)}]"
    )


def count(value: float) -> str:
    """A count with thousands separated."""
    return f"{round(value):,}"


def milliseconds(value: float | None) -> str:
    """A latency, or a dash if it was not measured."""
    return "–" if value is None else f"{value:.2f} ms"


def cost(value: Cost, axis: str) -> str:
    """One of a model's costs."""
    if axis == "latency":
        return milliseconds(value.latency)
    return count(getattr(value, axis))


def ratio(part: float | None, whole: float | None) -> str:
    """A part of a whole in percent, or a dash if one of them is unknown."""
    if part is None or not whole:
        return "–"
    return f"{100 * part / whole:.1f} %"


def duration(seconds: float) -> str:
    """Seconds, or minutes and seconds from 100 s on."""
    if seconds < 100:
        return f"{seconds:.1f} s"
    return f"{int(seconds) // 60} min {int(seconds) % 60:02d} s"
