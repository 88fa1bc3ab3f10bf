"""The Pareto front as an SVG picture that needs no script: for a README, slides and notebooks."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from html import escape

from saikei.runs import numbers
from saikei.runs.candidate import KINDS, Candidate
from saikei.runs.front import pareto_front
from saikei.runs.record import Run

# Readable on white and on black.
_INK = "#7d8796"
_COLOURS = {
    "original": "#8b95a5",
    "given": "#64748b",
    "kept": "#3b82f6",
    "fresh": "#f59e0b",
    "fused": "#a855f7",
    "quantized": "#14b8a6",
}
_SHIPPED = "#059669"
_RING = f'fill="none" stroke="{_SHIPPED}" stroke-width="2"'
_DASHES = ("none", "7 4", "2 4")
_WIDTH, _HEIGHT = 720.0, 340.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 64.0, 20.0, 18.0, 62.0


def front_picture(runs: Mapping[str, Run]) -> str:
    """The candidates of runs, their metric with 95 % intervals against their cost, as SVG.

    Args:
        runs: Finished runs by name, with the same metric. The cost is the one that the first run
            compares.
    """
    first = next(iter(runs.values()))
    axis, metric = first.cost_axis, first.candidate(first.baseline).validation.name
    candidates = [(run, c) for run in runs.values() for c in run.candidates if _has(c, axis)]
    # Dominated candidates far below the others would press all the rest together.
    shown = [c for run, c in candidates if c.name in (*run.front, run.chosen, run.baseline)]
    scale = _Scale(
        (0.0, max(float(c.cost.on(axis)) for _, c in candidates)),
        _wide([value for c in shown for value in _percent(c)]),
    )
    parts = [*_axes(scale, numbers.COSTS[axis], metric)]
    for number, run in enumerate(runs.values()):
        parts += _run(run, axis, scale, _DASHES[number % len(_DASHES)])
    parts += _legend(runs, {c.kind for _, c in candidates})
    label = escape(f"{metric} against {numbers.COSTS[axis]}: {', '.join(runs)}")
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH:g} {_HEIGHT:g}" '
        f'width="100%" style="max-width: {_WIDTH:g}px" role="img" aria-label="{label}" '
        f'font-family="system-ui, sans-serif" font-size="12" fill="{_INK}">\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )


class _Scale:
    """From costs and values to positions in the picture."""

    def __init__(self, x: tuple[float, float], y: tuple[float, float]) -> None:
        self.x_ticks, self.y_ticks = list(_ticks(*x)), list(_ticks(*y))
        self._x = (0.0, max(x[1] * 1.04, 1e-9))
        self._y = y

    def x(self, cost: float) -> float:
        low, high = self._x
        return _LEFT + (cost - low) / (high - low) * (_WIDTH - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        """The height of a value; those out of range are drawn at the edge."""
        low, high = self._y
        share = min(1.0, max(0.0, (value - low) / (high - low)))
        return _HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM)


def _has(candidate: Candidate, axis: str) -> bool:
    return axis != "latency" or candidate.cost.latency is not None


def _percent(candidate: Candidate) -> tuple[float, float, float]:
    """The metric and its interval, in percent for a share."""
    score = candidate.validation
    factor = 100.0 if numbers.is_share(score.name) else 1.0
    return factor * score.value, factor * score.low, factor * score.high


def _wide(values: list[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    space = 0.08 * (high - low) or 1.0
    return low - space, high + space


def _ticks(low: float, high: float) -> Iterator[float]:
    """About five round numbers between two values."""
    step = 10 ** math.floor(math.log10((high - low) / 4 or 1.0))
    step *= next(f for f in (1, 2, 5, 10) if (high - low) / (step * f) <= 6)
    for number in range(math.ceil(low / step), math.floor(high / step) + 1):
        yield number * step


def _axes(scale: _Scale, cost: str, metric: str) -> Iterator[str]:
    bottom = _HEIGHT - _BOTTOM
    for value in scale.y_ticks:
        y = scale.y(value)
        yield _line(_LEFT, y, _WIDTH - _RIGHT, y, f'stroke="{_INK}" stroke-opacity=".25"')
        yield _text(_LEFT - 8, y + 4, f"{value:.10g}", "end")
    for value in scale.x_ticks:
        yield _text(scale.x(value), bottom + 18, _short(value))
    unit = " (%)" if numbers.is_share(metric) else ""
    title = f"{metric.replace('_', ' ')} on validation{unit}, 95 % intervals, against {cost}"
    yield _text(_LEFT, bottom + 36, title, "start")


def _run(run: Run, axis: str, scale: _Scale, dashes: str) -> Iterator[str]:
    front = [c for c in pareto_front(run.candidates, axis) if _has(c, axis)]
    places = " ".join(
        f"{scale.x(c.cost.on(axis)):.1f},{scale.y(_percent(c)[0]):.1f}" for c in front
    )
    yield f'<polyline points="{places}" fill="none" stroke="{_INK}" stroke-dasharray="{dashes}"/>'
    limit = run.settings.limits.get(axis)
    if limit is not None:
        x = scale.x(limit)
        style = f'stroke="{_SHIPPED}" stroke-dasharray="4 4"'
        yield _line(x, _TOP, x, _HEIGHT - _BOTTOM, style)
        yield _text(x + 5, _HEIGHT - _BOTTOM - 6, "budget", "start")
    strong = {c.name for c in front} | {run.chosen}
    for c in (c for c in run.candidates if _has(c, axis)):
        value, low, high = _percent(c)
        x, y = scale.x(c.cost.on(axis)), scale.y(value)
        colour = _COLOURS[c.kind]
        title = escape(f"{c.name}: {numbers.score(c.validation)}, {_short(c.cost.on(axis))}")
        if c.name == run.chosen:
            yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="10" {_RING}/>'
        faint = "" if c.name in strong else ' opacity=".35"'
        bar = _line(x, scale.y(low), x, scale.y(high), f'stroke="{colour}"')
        dot = f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="{colour}"/>'
        yield f"<g{faint}><title>{title}</title>{bar}{dot}</g>"


def _legend(runs: Mapping[str, Run], kinds: set[str]) -> Iterator[str]:
    x, y = _LEFT, _HEIGHT - 8
    entries = [(_COLOURS[kind], KINDS[kind]) for kind in KINDS if kind in kinds]
    for colour, text in [*entries, ("", "to ship")]:
        style = f'fill="{colour}"' if colour else _RING
        yield f'<circle cx="{x + 5:.1f}" cy="{y - 4:.1f}" r="5" {style}/>'
        yield _text(x + 15, y, text, "start")
        x += 30 + 6.6 * len(text)
    if len(runs) > 1:
        for number, name in enumerate(runs):
            style = f'stroke="{_INK}" stroke-dasharray="{_DASHES[number % len(_DASHES)]}"'
            yield _line(x, y - 4, x + 24, y - 4, style)
            yield _text(x + 30, y, name[:24], "start")
            x += 46 + 6.6 * len(name[:24])


def _line(x1: float, y1: float, x2: float, y2: float, style: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" {style}/>'


def _text(x: float, y: float, text: str, anchor: str = "middle") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _short(value: float) -> str:
    """A cost such as `1.2 M`."""
    for size, letter in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if abs(value) >= size:
            return f"{value / size:.4g}{letter}"
    return f"{value:.4g}"
