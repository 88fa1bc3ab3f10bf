"""`saikei merge`: merge files of weights, tensor by tensor."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from saikei.cli.options import Json, Overwrite
from saikei.cli.output import import_keras, say, say_json


def merge(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE…",
            help="Two or more .safetensors, .weights.h5 or .keras files, or folders of shards.",
        ),
    ],
    out: Annotated[Path, typer.Option(help="The merged file, of the same kind.")],
    with_: Annotated[
        str,
        typer.Option(
            "--with",
            help="uniform, slerp, ema, task_arithmetic, ties, dare, model_stock, or a method as "
            "in Python: Linear(weights=(0.3, 0.7)), Ties(density=0.3).",
        ),
    ] = "uniform",
    base: Annotated[
        Path | None,
        typer.Option(help="The file of the model that all were fine-tuned from, if needed."),
    ] = None,
    check: Annotated[
        bool, typer.Option(help="Refuse files whose kernels do not correlate.")
    ] = True,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Merge files of weights of any size, one tensor at a time, without data or a model."""
    import_keras()
    from saikei.merging import merge_files

    made = merge_files(
        files, out, _method(with_), base=base, check=check, overwrite=overwrite
    ).to_dict()
    if as_json:
        say_json(made)
        return
    correlation = (
        "" if made["correlation"] is None else f"; least correlation {made['correlation']:.3f}"
    )
    say(f"{made['path']}: {made['tensors']:,} tensors, {made['nbytes']:,} bytes{correlation}.")


def _method(typed: str) -> Any:
    """A method from its name, or typed as a call."""
    from saikei.cli.steps import parse_call
    from saikei.merging.names import METHODS, NAMED

    return typed if typed in NAMED else parse_call(typed, METHODS, "--with")
