"""The report as one HTML file that works offline."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import jinja2
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from saikei.report.charts import choices_chart, front_chart
from saikei.report.curves import training_chart
from saikei.report.parts import report_of
from saikei.runs.record import Run
from saikei.writing import check_target, write_text


def render_html(run: Run) -> str:
    """One HTML page with everything in it: no request leaves it.

    Args:
        run: a finished run.
    """
    charts = {
        "front": front_chart(run),
        "choices": choices_chart(run),
        "training": training_chart(run),
    }
    return (
        _environment()
        .get_template("report.html.j2")
        .render(
            report=report_of(run),
            charts=charts,
            style=Markup(_asset("report.css")),
            script=Markup(_asset("report.js")),
            plotly=Markup(get_plotlyjs()),
        )
    )


def write_html(run: Run, path: str | Path, overwrite: bool = True) -> Path:
    """Write the page, whole or not at all.

    Args:
        run: a finished run.
        path: the file; its folder must exist.
        overwrite: whether a file may be replaced, as in `keras.Model.save`.

    Returns:
        The path.

    Raises:
        InputError: when the place to write to is wrong.
        DiskError: when the disk does not take it.
    """
    return write_text(check_target(path, "", overwrite), render_html(run))


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
