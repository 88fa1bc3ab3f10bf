"""`saikei explain`: what each member of a fusion is worth, and which can go."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from saikei.cli.fuse import typed_fusion
from saikei.cli.options import Json, Seed
from saikei.cli.output import import_keras, say, say_json
from saikei.errors import InputError

if TYPE_CHECKING:
    from saikei.data import Splits

Part = Literal["test", "validation"]
_NAMES = {"test": "x_test, y_test", "validation": "x_val, y_val"}


def explain(
    models: Annotated[
        list[Path],
        typer.Argument(metavar="MODEL.keras…", help="A fused model, or two or more members."),
    ],
    data: Annotated[
        Path, typer.Option(help="An .npz with x_test, y_test or x_val, y_val that is held out.")
    ],
    on: Annotated[
        Part | None, typer.Option(help="The part of the data; test where there is one.")
    ] = None,
    metric: Annotated[
        Literal["loss", "accuracy"], typer.Option(help="What members gain and lose.")
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
    """Show what each member of a fusion is worth, how members compare, and which can go."""
    import_keras()
    from saikei.data import load_npz
    from saikei.fusion import explain as explain_fusion
    from saikei.modelfile import load_model

    if len(models) == 1 and (weights is not None or with_ is not None):
        raise InputError("--weights and --with go with members: give two or more models.")
    fusion = typed_fusion(weights, with_) if len(models) > 1 else None
    part, held_out = _held_out(load_npz(data), on, data)
    loaded: Any = [load_model(path) for path in models]
    explained = explain_fusion(
        loaded[0] if fusion is None else loaded,
        held_out,
        fusion=fusion,
        metric=metric,
        seed=seed,
    )
    if as_json:
        say_json({"on": part, **explained.to_dict()})
        return
    say(f"On {part}, {explained.fused.n:,} rows.\n\n{explained}")


def _held_out(splits: Splits, on: Part | None, path: Path) -> tuple[str, Any]:
    part = on or ("validation" if splits.test is None else "test")
    chosen = splits.test if part == "test" else splits.validation
    if chosen is None:
        wanted = _NAMES[part] if on else " or ".join(_NAMES.values())
        raise InputError(f"'{path}' holds no {wanted}: add rows that no model was trained on.")
    return part, chosen
