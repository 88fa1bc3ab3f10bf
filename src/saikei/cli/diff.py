"""`saikei diff`: the graphs of two models, laid over each other."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from saikei.cli.options import Json, Overwrite, refuse_typed
from saikei.cli.output import import_keras, print_json, print_text


def diff(
    context: typer.Context,
    first: Annotated[Path, typer.Argument(metavar="A.keras", help="A saved Keras 3 model.")],
    second: Annotated[Path, typer.Argument(metavar="B.keras", help="The model to compare.")],
    out: Annotated[
        Path | None, typer.Option(help="An HTML file to draw the two graphs into.")
    ] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Compare two models layer by layer: what is kept, narrower, replaced, removed and added."""
    if out is None:
        refuse_typed(context, ["overwrite"], "without --out, no file is written.")
    import_keras()
    from saikei.modelfile import load_model
    from saikei.report import render_diff
    from saikei.runs.graph_diff import compare_graphs
    from saikei.writing import check_target, write_text

    if out is not None:
        check_target(out, ".html", overwrite)
    compared = compare_graphs(load_model(first), load_model(second))
    if out is not None:
        write_text(out, render_diff(compared))
    if as_json:
        print_json(compared.to_dict())
        return
    print_text(str(compared))
    if out is not None:
        print_text(f"Graph: {out}")
