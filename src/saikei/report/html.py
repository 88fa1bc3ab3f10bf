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
    """The report as one HTML page that contains all it needs and requests nothing.

    Args:
        run: A finished run.
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
    """Write the report as one HTML file that works offline.

    Args:
        run: A finished run.
        path: The file; its folder must exist.
        overwrite: Whether an existing file may be replaced, as in `keras.Model.save`.

    Returns:
        The path.

    Raises:
        InputError: If the path cannot be written to, or exists and `overwrite` is false.
        DiskError: If the disk is full or refuses the file.
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
