"""`saikei edit`: apply a recipe or steps that are typed, or prune by options."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from saikei.cli.options import (
    InputShape,
    Json,
    Latency,
    Macs,
    ModelFile,
    Overwrite,
    Params,
    Seed,
    budget,
    number,
)
from saikei.cli.options import input_shape as parsed_shape
from saikei.cli.output import import_keras, say, say_json
from saikei.errors import InputError

if TYPE_CHECKING:
    from saikei.edits import Recipe


def edit(
    model: ModelFile,
    out: Annotated[Path, typer.Option(help="The edited model, a .keras file.")],
    recipe: Annotated[Path | None, typer.Option(help="A recipe, as JSON.")] = None,
    step: Annotated[
        list[str] | None,
        typer.Option(help="One edit as in Python, RemoveLayers(0.25); repeated: in this order."),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            help="An .npz with x_train, for edits that fit weights to data; labels are optional."
        ),
    ] = None,
    keep: Annotated[
        str | None, typer.Option(help="Prune to this share (0.5) or number (16) of the channels.")
    ] = None,
    macs: Macs = None,
    params: Params = None,
    latency: Latency = None,
    importance: Annotated[
        str | None,
        typer.Option(
            help="magnitude, l1, bn_scale, geometric_median or random; with --data also "
            "reconstruction, activation, apoz, taylor or hessian. Without it: reconstruction "
            "where there is data, else magnitude."
        ),
    ] = None,
    scope: Annotated[str, typer.Option(help="global or layer.")] = "global",
    multiple_of: Annotated[int, typer.Option(help="Keep multiples of this many channels.")] = 1,
    exclude: Annotated[
        list[str] | None, typer.Option(help="A layer whose channels stay; may be repeated.")
    ] = None,
    compensate: Annotated[
        bool, typer.Option(help="Refit what is left by least squares, where there is --data.")
    ] = True,
    seed: Seed = 0,
    input_shape: InputShape = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Change the structure of a model: by a recipe, by steps, or by pruning to a budget."""
    import_keras()
    from saikei.costs import profile
    from saikei.edits.base import read_with_sizes
    from saikei.modelfile import load_model, save_model
    from saikei.npz import load_npz
    from saikei.writing import check_target

    limits = (macs, params, latency)
    if sum([recipe is not None, bool(step), keep is not None, any(limits)]) != 1:
        raise InputError(
            "Say what to do in one way: --recipe, --step, --keep, or limits (--macs, --params, "
            "--latency)."
        )
    check_target(out, ".keras", overwrite)
    if recipe is not None:
        steps = _read(recipe)
    elif step:
        steps = _typed(step)
    else:
        amount = budget(*limits) if keep is None else number(keep, "--keep")
        names = tuple(exclude or ())
        steps = _pruning(amount, importance, scope, multiple_of, names, seed, compensate)
    samples = load_npz(data, labels=False).need("train") if data is not None else None
    loaded = load_model(model)
    sizes = read_with_sizes(loaded, samples, parsed_shape(input_shape)).sizes or None
    edited = steps(loaded, samples, sizes)
    before, after = (profile(m, latency=False, input_shape=sizes) for m in (loaded, edited))
    save_model(edited, out, overwrite)
    if as_json:
        say_json(
            {
                "out": str(out),
                "recipe": steps.to_dict(),
                "before": {"params": before.params, "macs": before.macs},
                "after": {"params": after.params, "macs": after.macs},
                "sizes": {name: list(shape) for name, shape in after.sizes.items()},
                "assumed": list(after.assumed),
            }
        )
        return
    notes = "".join(f" MACs are counted where {note}." for note in after.size_notes())
    say(
        f"{out}: {after.params:,} parameters ({after.params / before.params:.1%}), "
        f"{after.macs:,} MACs ({after.macs / max(before.macs, 1):.1%}). Train it before use: "
        f"an approximate edit costs accuracy that training brings back.{notes}"
    )


def _read(path: Path) -> Recipe:
    from saikei.edits import Recipe
    from saikei.reading import read_json

    return Recipe.from_dict(read_json(path, "The recipe"))


def _typed(texts: list[str]) -> Recipe:
    from saikei.budget import Budget
    from saikei.cli.steps import parse_call, shown
    from saikei.edits import Recipe
    from saikei.edits.recipe import EDITS

    edits = [parse_call(text, {**EDITS, "Budget": Budget}, "--step") for text in texts]
    for text, parsed in zip(texts, edits, strict=True):
        if isinstance(parsed, Budget):
            raise InputError(
                f"--step {shown(text)} is a budget: give it to an edit, or use --macs."
            )
    return Recipe(edits)


def _pruning(
    keep: Any,
    importance: str | None,
    scope: Any,
    multiple_of: int,
    exclude: tuple[str, ...],
    seed: int,
    compensate: bool,
) -> Recipe:
    from saikei.edits import PruneChannels, Recipe

    edit = PruneChannels(keep, importance, scope, multiple_of, exclude, seed, compensate)
    return Recipe([edit])
