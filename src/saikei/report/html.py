"""The report as one HTML file that works offline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from saikei.report.charts import charts_of
from saikei.report.comparison import compare_runs
from saikei.report.lanes import picture_of
from saikei.report.parts import report_of
from saikei.report.picture import front_picture
from saikei.runs import numbers
from saikei.runs.details import Details
from saikei.runs.explained import ModelExplanation
from saikei.runs.graph_diff import GraphDiff
from saikei.runs.record import Run
from saikei.writing import check_target, write_text


def render_html(run: Run, details: Details | None = None) -> str:
    """The report as one HTML page that contains all it needs and requests nothing.

    Args:
        run: A finished run.
        details: What is shown besides its record; `None` shows the record alone.
    """
    details = details or Details()
    return _rendered(
        "report.html.j2",
        report=report_of(run),
        details=details,
        pictures=[picture_of(diff) for diff in details.graphs],
        charts=charts_of(run, details),
        signed=numbers.signed,
        metric_value=numbers.metric_value,
    )


def write_html(
    run: Run, path: str | Path, details: Details | None = None, overwrite: bool = True
) -> Path:
    """Write the report as one HTML file that works offline.

    Args:
        run: A finished run.
        path: The file; its folder must exist.
        details: What is shown besides its record; `None` shows the record alone.
        overwrite: Whether an existing file may be replaced, as in `keras.Model.save`.

    Returns:
        The path.

    Raises:
        InputError: If the path cannot be written to, or exists and `overwrite` is false.
        DiskError: If the disk is full or refuses the file.
    """
    return write_text(check_target(path, "", overwrite), render_html(run, details))


def render_diff(diff: GraphDiff) -> str:
    """The comparison of two models as one HTML page that works offline.

    Args:
        diff: The comparison.
    """
    return _rendered("diff.html.j2", picture=picture_of(diff), charts={})


def render_explanation(found: ModelExplanation) -> str:
    """The explanation of one model as one HTML page that works offline.

    Args:
        found: The explanation.
    """
    chart = {
        "x": "channels removed (%)",
        "label": f"increase of the {found.metric}",
        "lines": [
            {"name": group.name, "points": [list(point) for point in group.curve]}
            for group in found.groups
            if group.curve
        ],
    }
    charts = {"sensitivity": chart} if chart["lines"] else {}
    return _rendered(
        "explanation.html.j2", found=found, rows=list(found.group_rows()), charts=charts
    )


def render_comparison(runs: Mapping[str, Run], details: Sequence[Details] = ()) -> str:
    """Two runs side by side as one HTML page that works offline.

    Args:
        runs: Two finished runs by name, with the same metric.
        details: What is shown of each run besides its record; empty for the records alone.

    Raises:
        InputError: If the runs have different metrics.
    """
    graphs = [
        (name, [picture_of(diff) for diff in one.graphs])
        for name, one in zip(runs, details, strict=False)
        if one.graphs
    ]
    return _rendered(
        "comparison.html.j2",
        compared=compare_runs(runs),
        front=Markup(front_picture(runs)),
        graphs=graphs,
        charts={},
    )


def _rendered(template: str, **values: Any) -> str:
    page = _environment().get_template(template)
    style, script = Markup(_asset("report.css")), Markup(_asset("report.js"))
    return page.render(style=style, script=script, **values)


@cache
def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.PackageLoader("saikei.report", "page"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _asset(name: str) -> str:
    return (Path(__file__).parent / "page" / name).read_text(encoding="utf-8")
