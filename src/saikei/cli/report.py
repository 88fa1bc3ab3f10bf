"""`saikei report`: show a finished run, or compare two."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from saikei.cli.data import read_data
from saikei.cli.options import DivideBy, Json, Label, Overwrite, refuse_typed
from saikei.cli.output import import_keras, print_json, print_text
from saikei.errors import InputError

if TYPE_CHECKING:
    import keras

    from saikei.runs.record import Run
    from saikei.search.folder import RunFolder


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
    data: Annotated[
        str | None,
        typer.Option(
            help="Of one run: held-out data, to show what the original and the shipped model look "
            "at: an .npz with x_test or x_val, a folder of images, a table or module:function."
        ),
    ] = None,
    label: Label = None,
    divide_by: DivideBy = None,
    files: Annotated[
        bool,
        typer.Option(
            "--files",
            help="Of one run: export the original and the shipped model to LiteRT and ONNX, and "
            "show the time of one sample in each file on this machine.",
        ),
    ] = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Show a finished run and write its report again, or compare two runs."""
    if len(runs) > 2:
        raise InputError("A report is of one run, or compares two: give fewer folders.")
    if len({run.resolve() for run in runs}) < len(runs):
        raise InputError(f"'{runs[0]}' is given twice: give the folders of two runs.")
    if len(runs) > 1:
        refuse_typed(context, ["data", "files"], "it is for one run.")
    if out is not None and out.suffix == ".svg":
        refuse_typed(context, ["data", "files"], "an .svg shows the Pareto front alone.")
    if data is None:
        refuse_typed(context, ["label", "divide_by"], "it is for --data, which is missing.")
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
    given = (data, label, divide_by)
    text = front_picture(records) if page.suffix == ".svg" else _page(records, runs, given, files)
    write_text(page, text)
    if as_json:
        shown = [record.to_dict() for record in records.values()]
        print_json({"report": str(page), **({"runs": shown} if compared else {"run": shown[0]})})
        return
    print_text(str(compared) if compared else text_report(next(iter(records.values()))))
    print_text(f"Report: {page}")


def _names(runs: list[Path]) -> list[str]:
    """Names of the folders, or their paths if the names are the same."""
    names = [path.resolve().name for path in runs]
    return names if len(set(names)) == len(runs) else [str(path) for path in runs]


def _page(
    records: dict[str, Run],
    folders: list[Path],
    given: tuple[str | None, str | None, float | None],
    files: bool,
) -> str:
    """The report of a run, or the comparison of two, as a page."""
    from saikei.report import render_comparison, render_html
    from saikei.search.details import details_of, details_on, details_with_files
    from saikei.search.folder import RunFolder

    stored_in = [RunFolder(folder, {}) for folder in folders]
    pairs = list(zip(records.values(), stored_in, strict=True))
    if len(pairs) == 2:
        return render_comparison(records, [details_of(*pair) for pair in pairs])
    ((run, stored),) = pairs
    details = details_with_files(run, stored) if files else details_of(run, stored)
    if given[0] is None:
        return render_html(run, details)
    part, classes = _held_out(stored, stored.model(run.baseline), given)
    return render_html(run, details_on(run, stored, part, classes))


def _held_out(
    stored: RunFolder, original: keras.Model, given: tuple[str | None, str | None, float | None]
) -> tuple[Any, tuple[str, ...]]:
    """The test data of `--data`, or else its validation data, and the names of its classes."""
    import keras
    import numpy as np

    from saikei.batches import is_text
    from saikei.hub.family import is_task
    from saikei.modelfile import load_model

    data, label, divide_by = given
    assert data is not None
    # Of a task of KerasHub, the file to ship has the preprocessor.
    shipped = load_model(stored.best, compiled=False)
    source = read_data(data, shipped if is_task(shipped) else original, label, divide_by, False)
    part = source.need("validation" if source.part("test") is None else "test")
    texts = any(is_text(np.asarray(leaf)) for leaf in keras.tree.flatten(part[0]))
    if texts and all(one.dtype != "string" for one in original.inputs):
        raise InputError(
            f"--data {data} holds texts, and '{stored.best}' has no preprocessor that makes tokens "
            "of them: give an .npz of tokens (x_test.token_ids, x_test.padding_mask, y_test)."
        )
    return part, source.classes
