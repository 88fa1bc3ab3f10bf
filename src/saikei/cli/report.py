"""`saikei report`: show a finished run, or compare two."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from saikei.cli.options import Json, Overwrite, refuse_typed
from saikei.cli.output import import_keras, say, say_json
from saikei.errors import InputError

if TYPE_CHECKING:
    from saikei.runs.record import Run


def report(
    context: typer.Context,
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN/ [RUN/]", help="Folders of one or two runs.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            help="An .html file, or an .svg file for a picture of the Pareto front alone. Default: "
            "report.html in the run's folder, replaced; of two runs, comparison.html here."
        ),
    ] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Show a finished run and write its report again, or compare two runs."""
    if len(runs) > 2:
        raise InputError("A report is of one run, or compares two: give fewer folders.")
    if len({run.resolve() for run in runs}) < len(runs):
        raise InputError(f"'{runs[0]}' is given twice: give the folders of two runs.")
    if out is None and len(runs) == 1:
        refuse_typed(context, ["overwrite"], "without --out, the run's own report is replaced.")
    import_keras()
    from saikei.report import compare_runs, front_picture, text_report
    from saikei.runs.record import Run
    from saikei.writing import check_target, write_text

    page = runs[0] / "report.html" if out is None and len(runs) == 1 else out
    if page is None or page == out:
        page = check_target(page or Path("comparison.html"), "", overwrite)
    records = dict(zip(_names(runs), map(Run.load, runs), strict=True))
    compared = compare_runs(records) if len(runs) == 2 else None
    text = front_picture(records) if page.suffix == ".svg" else _page(records, runs)
    write_text(page, text)
    if as_json:
        shown = [record.to_dict() for record in records.values()]
        say_json({"report": str(page), **({"runs": shown} if compared else {"run": shown[0]})})
        return
    say(str(compared) if compared else text_report(next(iter(records.values()))))
    say(f"Report: {page}")


def _names(runs: list[Path]) -> list[str]:
    """Names of the folders, or their paths if the names are the same."""
    names = [path.resolve().name for path in runs]
    return names if len(set(names)) == len(runs) else [str(path) for path in runs]


def _page(records: dict[str, Run], folders: list[Path]) -> str:
    """The report of a run, or the comparison of two, as a page."""
    from saikei.report import render_comparison, render_html
    from saikei.search.details import details_of
    from saikei.search.folder import RunFolder

    details = [
        details_of(record, RunFolder(folder, {}))
        for record, folder in zip(records.values(), folders, strict=True)
    ]
    if len(details) == 2:
        return render_comparison(records, details)
    return render_html(next(iter(records.values())), details[0])
