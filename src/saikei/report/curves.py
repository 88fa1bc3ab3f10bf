"""The chart of the metrics that were logged during the trainings."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import plotly.graph_objects as go

from saikei.report.charts import COLOURS, chart_text
from saikei.runs import numbers
from saikei.runs.candidate import Candidate
from saikei.runs.record import Run


def training_chart(run: Run) -> dict[str, Any]:
    """Logged metrics after each epoch, one line for each trained candidate."""
    trained = [c for c in run.candidates if c.training is not None and c.training.curves]
    keys = _curve_keys(trained)
    shipped = {run.chosen, *run.candidate(run.chosen).members}
    figure = go.Figure()
    for candidate in trained:
        name = chart_text(candidate.name)
        figure.add_trace(
            go.Scatter(
                mode="lines",
                name=name,
                line={
                    "color": COLOURS[candidate.kind],
                    "width": 3 if candidate.name in shipped else 1.3,
                    "dash": "solid" if candidate.kind == "kept" else "dash",
                },
                opacity=1.0 if candidate.name in shipped else 0.65,
                **_curve(candidate, keys[0] if keys else ""),
                hovertemplate=f"{name}<br>epoch %{{x}}: %{{y:.4g}}<extra></extra>",
            )
        )
    figure.update_layout(template="none", hovermode="closest")
    epochs = max((c.training.epochs for c in trained if c.training), default=1)
    figure.update_xaxes(title_text="epoch", tick0=1, dtick=max(1, epochs // 10))
    views = {
        _curve_label(key): {
            "restyle": _columns(_curve(c, key) for c in trained),
            "layout": {
                "yaxis.title.text": chart_text(_curve_label(key)),
                "yaxis.tickformat": _format(key),
            },
        }
        for key in keys
    }
    if views:
        figure.update_yaxes(title_text=chart_text(next(iter(views))), tickformat=_format(keys[0]))
    return {"figure": figure.to_plotly_json(), "views": views}


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


def _format(key: str) -> str:
    """Number format of the axis: percent for a share, Plotly's choice otherwise."""
    return ".1~%" if numbers.is_share(key) else ""


def _curve(candidate: Candidate, key: str) -> dict[str, list[Any]]:
    assert candidate.training is not None
    values = candidate.training.curves.get(key, ())
    # The page holds the figures as JSON, which has no infinity: the line gets a gap instead.
    shown = [value if math.isfinite(value) else None for value in values]
    return {"x": [i + 1 for i in range(len(values))], "y": shown}


def _columns(curves: Iterable[dict[str, list[Any]]]) -> dict[str, list[list[Any]]]:
    listed = list(curves)
    return {"x": [c["x"] for c in listed], "y": [c["y"] for c in listed]}
