"""`saikei report`: show a finished run and write its report again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from saikei.cli.options import Json, Overwrite, refuse_typed
from saikei.cli.output import import_keras, say, say_json


def report(
    context: typer.Context,
    run: Annotated[Path, typer.Argument(metavar="RUN/", help="The folder of a finished run.")],
    out: Annotated[
        Path | None,
        typer.Option(help="The HTML file. Default: report.html in the run's folder, replaced."),
    ] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Show a finished run and write its report again."""
    if out is None:
        refuse_typed(context, ["overwrite"], "without --out, the run's own report is replaced.")
    import_keras()
    from saikei.report import text_report, write_html
    from saikei.runs.record import Run
    from saikei.search.details import details_of
    from saikei.search.folder import RunFolder
    from saikei.writing import check_target

    record = Run.load(run)
    page = run / "report.html" if out is None else check_target(out, "", overwrite)
    write_html(record, page, details_of(record, RunFolder(run, {})))
    if as_json:
        say_json({"report": str(page), "run": record.to_dict()})
        return
    say(text_report(record))
    say(f"Report: {page}")
