"""`saikei explain`: what each member of a fusion is worth, and which can be removed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from saikei.cli.fuse import typed_fusion, with_availabilities
from saikei.cli.options import DivideBy, Json, Label, Seed
from saikei.cli.output import import_keras, say, say_json
from saikei.errors import InputError


def explain(
    models: Annotated[
        list[Path],
        typer.Argument(metavar="MODEL.keras…", help="A fused model, or two or more members."),
    ],
    data: Annotated[
        str,
        typer.Option(
            help="Held-out data: an .npz with x_test, y_test or x_val, y_val; or a folder of "
            "images, a table or module:function, whose only part is taken where it has no test."
        ),
    ],
    label: Label = None,
    divide_by: DivideBy = None,
    on: Annotated[
        Literal["test", "validation"] | None,
        typer.Option(help="The part of the data; test where there is one."),
    ] = None,
    metric: Annotated[
        Literal["loss", "accuracy"], typer.Option(help="The metric by which members are valued.")
    ] = "loss",
    weights: Annotated[
        str | None,
        typer.Option(help="Of members: equal, learn or greedy, or numbers: 0.3,0.7."),
    ] = None,
    with_: Annotated[
        str | None,
        typer.Option("--with", help="The fusion of members, as in Python: Stack(), BestMember()."),
    ] = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Show what each member of a fusion is worth, how they compare, and which can be removed."""
    import_keras()
    from saikei.judging import explain as explain_fusion
    from saikei.modelfile import load_model
    from saikei.sources import read_source

    if len(models) == 1 and (weights is not None or with_ is not None):
        raise InputError("--weights and --with go with members: give two or more models.")
    fusion = typed_fusion(weights, with_) if len(models) > 1 else None
    loaded: Any = [load_model(path) for path in models]
    archive = read_source(data, loaded[0], label=label, divide_by=divide_by)
    part = on or ("validation" if archive.part("test") is None else "test")
    held_out = archive.need(part)
    explained = explain_fusion(
        loaded[0] if fusion is None else loaded,
        held_out if fusion is not None else with_availabilities(loaded[0], held_out),
        fusion=fusion,
        metric=metric,
        seed=seed,
    )
    if as_json:
        say_json({"on": part, **explained.to_dict()})
        return
    say(f"On {part}, {explained.fused.n:,} rows.\n\n{explained}")
