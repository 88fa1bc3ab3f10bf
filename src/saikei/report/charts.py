"""The interactive charts, as Plotly figures; the page adds the colours of its theme."""

from __future__ import annotations

import html
from collections.abc import Mapping
from typing import Any

import plotly.graph_objects as go

from saikei.report.parts import kind_text
from saikei.runs import numbers
from saikei.runs.candidate import COST_AXES, KINDS, Candidate, Kind
from saikei.runs.front import pareto_front
from saikei.runs.record import Run

# Mid-tones that are readable on a light and on a dark page.
COLOURS: Mapping[Kind, str] = {
    "original": "#8b95a5",
    "given": "#64748b",
    "kept": "#3b82f6",
    "fresh": "#f59e0b",
    "fused": "#a855f7",
    "quantized": "#14b8a6",
}
SYMBOLS: Mapping[Kind, str] = {
    "original": "star",
    "given": "star-diamond",
    "kept": "circle",
    "fresh": "diamond",
    "fused": "hexagon2",
    "quantized": "square",
}
CHOSEN = "#10b981"


def front_chart(run: Run) -> dict[str, Any]:
    """Metric against cost, one point for each candidate, with the Pareto front.

    Returns:
        `{"figure": …, "views": …}`: the figure for the run's own cost axis, and for each axis
        the arguments of `Plotly.update` that show it.
    """
    axes = [run.cost_axis, *(a for a in COST_AXES if a != run.cost_axis)]
    axes = [
        a for a in axes if all(c.cost.latency is not None or a != "latency" for c in run.candidates)
    ]
    kinds = [kind for kind in KINDS if any(c.kind == kind for c in run.candidates)]
    figure = go.Figure()
    figure.add_trace(_front_line(run, run.cost_axis))
    figure.add_trace(_chosen_ring(run))
    for kind in kinds:
        figure.add_trace(_points(run, kind))
    metric = run.candidate(run.baseline).validation.name
    suffix = " (%)" if numbers.is_share(metric) else ""
    figure.update_layout(
        template="none", hovermode="closest", legend={"orientation": "h", "y": -0.25}
    )
    figure.update_xaxes(rangemode="tozero")
    figure.update_yaxes(title_text=f"{chart_text(metric.replace('_', ' '))} on validation{suffix}")
    views = {axis: _view(run, kinds, axis) for axis in axes}
    figure.update_layout(views[run.cost_axis]["layout"])
    return {"figure": figure.to_plotly_json(), "views": views}


def choices_chart(run: Run) -> dict[str, Any]:
    """Paired differences with their intervals, one row for each comparison."""
    metric = run.candidate(run.baseline).validation.name
    factor = 100.0 if numbers.is_share(metric) else 1.0
    rows = list(reversed(run.comparisons))
    labels = [chart_text(f"{c.first} − {c.second}") for c in rows]
    values = [factor * c.difference.value for c in rows]
    figure = go.Figure(
        go.Scatter(
            x=values,
            y=list(range(len(rows))),
            mode="markers",
            marker={"size": 10, "color": [_choice_colour(run, c.difference) for c in rows]},
            error_x={
                "type": "data",
                "symmetric": False,
                "array": [
                    factor * c.difference.high - v for c, v in zip(rows, values, strict=True)
                ],
                "arrayminus": [
                    v - factor * c.difference.low for c, v in zip(rows, values, strict=True)
                ],
                "thickness": 1.5,
                "width": 5,
                "color": "#8b95a5",
            },
            text=[
                f"{chart_text(c.question)}<br>"
                f"{chart_text(numbers.difference(metric, c.difference))}"
                for c in rows
            ],
            hovertemplate="%{text}<extra></extra>",
            showlegend=False,
        )
    )
    better = "first is better" if _greater_is_better(run) else "first is worse"
    figure.update_layout(template="none", height=110 + 34 * len(rows), margin={"l": 10, "t": 10})
    figure.update_yaxes(
        tickvals=list(range(len(rows))), ticktext=labels, automargin=True, zeroline=False
    )
    figure.update_xaxes(
        title_text=f"difference in {chart_text(numbers.unit(metric))}, 95 % interval "
        f"(right of zero: {better})",
        zeroline=True,
        zerolinewidth=2,
    )
    return {"figure": figure.to_plotly_json(), "views": {}}


def _greater_is_better(run: Run) -> bool:
    return run.candidate(run.baseline).validation.greater_is_better


def _choice_colour(run: Run, difference: Any) -> str:
    if not difference.clear:
        return "#8b95a5"
    return CHOSEN if (difference.value > 0) == _greater_is_better(run) else "#ef4444"


def _percent(candidate: Candidate) -> tuple[float, float, float]:
    score = candidate.validation
    factor = 100.0 if numbers.is_share(score.name) else 1.0
    return factor * score.value, factor * score.low, factor * score.high


def _points(run: Run, kind: Kind) -> go.Scatter:
    candidates = [c for c in run.candidates if c.kind == kind]
    values = [_percent(c) for c in candidates]
    return go.Scatter(
        name=KINDS[kind],
        x=[c.cost.on(run.cost_axis) for c in candidates],
        y=[value for value, _, _ in values],
        mode="markers",
        marker={
            "color": COLOURS[kind],
            "symbol": SYMBOLS[kind],
            "size": 15 if kind in ("original", "given") else 11,
            "opacity": [1.0 if c.name in (*run.front, run.chosen) else 0.55 for c in candidates],
        },
        error_y={
            "type": "data",
            "symmetric": False,
            "array": [high - value for value, _, high in values],
            "arrayminus": [value - low for value, low, _ in values],
            "thickness": 1,
            "width": 3,
            "color": _faint(COLOURS[kind]),
        },
        text=[_hover(run, c) for c in candidates],
        hovertemplate="%{text}<extra></extra>",
    )


def _faint(colour: str) -> str:
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.35)"


def _hover(run: Run, candidate: Candidate) -> str:
    baseline = run.candidate(run.baseline).cost
    cost = candidate.cost
    state = "Pareto-optimal" if candidate.name in run.front else "dominated"
    return "<br>".join(
        [
            f"<b>{chart_text(candidate.name)}</b> · {kind_text(candidate)}",
            f"{chart_text(candidate.validation.name)} {numbers.score(candidate.validation)}",
            f"{numbers.count(cost.macs)} MACs ({numbers.ratio(cost.macs, baseline.macs)})",
            f"{numbers.count(cost.params)} parameters"
            f" ({numbers.ratio(cost.params, baseline.params)})",
            f"{numbers.milliseconds(cost.latency)} per batch of {cost.batch_size}",
            f"{state}, {'fits' if candidate.fits else 'does not fit'} the budget",
        ]
    )


def _front_line(run: Run, axis: str) -> go.Scatter:
    front = pareto_front(run.candidates, axis)
    return go.Scatter(
        name="Pareto front",
        x=[c.cost.on(axis) for c in front],
        y=[_percent(c)[0] for c in front],
        mode="lines",
        line={"shape": "hv", "color": CHOSEN, "width": 1.5, "dash": "dot"},
        hoverinfo="skip",
    )


def _chosen_ring(run: Run) -> go.Scatter:
    chosen = run.candidate(run.chosen)
    return go.Scatter(
        name="to ship",
        x=[chosen.cost.on(run.cost_axis)],
        y=[_percent(chosen)[0]],
        mode="markers",
        marker={"size": 24, "color": "rgba(0,0,0,0)", "line": {"color": CHOSEN, "width": 2.5}},
        hoverinfo="skip",
    )


def _view(run: Run, kinds: list[Kind], axis: str) -> dict[str, Any]:
    front = _front_line(run, axis)
    ring = run.candidate(run.chosen).cost.on(axis)
    points = [[c.cost.on(axis) for c in run.candidates if c.kind == kind] for kind in kinds]
    ys = [[_percent(c)[0] for c in run.candidates if c.kind == kind] for kind in kinds]
    limit = run.settings.limits.get(axis)
    unit = f" (ms per batch of {run.candidate(run.baseline).cost.batch_size})"
    return {
        "restyle": {
            "x": [list(front.x), [ring], *points],
            "y": [list(front.y), [_percent(run.candidate(run.chosen))[0]], *ys],
        },
        "layout": {
            "xaxis.title.text": numbers.COSTS[axis] + (unit if axis == "latency" else ""),
            "shapes": [] if limit is None else [_budget_line(limit)],
            "annotations": [] if limit is None else [_budget_label(limit)],
        },
    }


def _budget_line(limit: float) -> dict[str, Any]:
    return {
        "type": "line",
        "x0": limit,
        "x1": limit,
        "yref": "paper",
        "y0": 0,
        "y1": 1,
        "line": {"color": "#ef4444", "width": 1.5, "dash": "dash"},
    }


def _budget_label(limit: float) -> dict[str, Any]:
    return {
        "x": limit,
        "y": 1,
        "yref": "paper",
        "text": "budget",
        "showarrow": False,
        "xanchor": "left",
        "yanchor": "top",
        "xshift": 5,
        "font": {"color": "#ef4444"},
    }


def chart_text(text: str) -> str:
    """Text that a Plotly chart shows unchanged: without HTML tags and `%{…}` templates.

    Args:
        text: Text from a record.
    """
    return html.escape(text, quote=False).replace("%{", "%&#123;")
