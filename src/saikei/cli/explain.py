"""`saikei explain`: what each member of a fusion is worth, or what one model is made of."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from saikei.cli.data import read_data
from saikei.cli.fuse import typed_fusion, with_availabilities
from saikei.cli.options import DivideBy, Json, Label, Overwrite, Seed, refuse_typed
from saikei.cli.output import import_keras, print_json, print_text
from saikei.errors import InputError


def explain(
    context: typer.Context,
    models: Annotated[
        list[Path],
        typer.Argument(
            metavar="MODEL.keras…", help="One model, a fused one or another; or several members."
        ),
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
        Literal["loss", "accuracy"],
        typer.Option(help="The metric by which members or channels are valued."),
    ] = "loss",
    original: Annotated[
        Path | None,
        typer.Option(
            help="For one model: the .keras file that it was made from, to compare what the two "
            "look at."
        ),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(help="Of members: equal, learn or greedy, or numbers: 0.3,0.7."),
    ] = None,
    with_: Annotated[
        str | None,
        typer.Option("--with", help="The fusion of members, as in Python: Stack(), BestMember()."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="For one model: an HTML file with charts and, of images, pictures."),
    ] = None,
    allow_in_sample: Annotated[
        bool, typer.Option(help="Explain even on rows that a model is known to be trained on.")
    ] = False,
    overwrite: Overwrite = False,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Show what each member of a fusion is worth, or which channels one model needs and why.

    Of one model: how much the loss grows when channels of each layer are removed, and what it
    looks at in its inputs, beside --original.
    """
    several = len(models) > 1
    if not several and (weights is not None or with_ is not None):
        raise InputError("--weights and --with go with members: give two or more models.")
    if several:
        refuse_typed(context, ["original", "out", "overwrite"], "it is for one model.")
    if out is None:
        refuse_typed(context, ["overwrite"], "without --out, no file is written.")
    import_keras()
    from saikei.hub import without_preprocessor
    from saikei.judging import Explanation
    from saikei.judging import explain as explain_models
    from saikei.modelfile import load_model
    from saikei.writing import check_target

    if out is not None:
        check_target(out, ".html", overwrite)
    tasks = [load_model(path) for path in models]
    archive = read_data(data, tasks[0], label, divide_by, labels=several)
    loaded: Any = without_preprocessor(tasks)
    part = on or ("validation" if archive.part("test") is None else "test")
    held_out = archive.need(part)
    explained = explain_models(
        loaded if several else loaded[0],
        held_out if several else with_availabilities(loaded[0], held_out),
        fusion=typed_fusion(weights, with_) if several else None,
        original=None if original is None else without_preprocessor(load_model(original)),
        metric=metric,
        class_names=archive.classes or None,
        seed=seed,
        allow_in_sample=allow_in_sample,
    )
    if out is not None:
        _write(explained, out)
    if as_json:
        print_json({"on": part, **explained.to_dict()})
        return
    rows = explained.fused.n if isinstance(explained, Explanation) else explained.rows
    print_text(f"On {part}, {rows:,} rows.\n\n{explained}")
    if out is not None:
        print_text(f"\nPage: {out}")


def _write(explained: Any, out: Path) -> None:
    from saikei.report import render_explanation
    from saikei.runs.explained import ModelExplanation
    from saikei.writing import write_text

    if not isinstance(explained, ModelExplanation):
        raise InputError(
            "--out draws the explanation of one model, and this one is a fusion: leave it out, or "
            "give --original, with which it is explained as one model."
        )
    write_text(out, render_explanation(explained))
