"""`saikei edit`: apply a recipe or typed edits, or prune by options."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from saikei.budget import LIMITS
from saikei.cli.data import optional_data
from saikei.cli.options import (
    Bytes,
    DivideBy,
    InputShape,
    Json,
    Label,
    Latency,
    LatencyBatch,
    Macs,
    Memory,
    ModelFile,
    Overwrite,
    Params,
    budget,
    number,
    refuse_typed,
)
from saikei.cli.options import input_shape as parsed_shape
from saikei.cli.output import import_keras, print_json, print_text
from saikei.errors import InputError

if TYPE_CHECKING:
    from saikei.edits import Recipe


# Arguments of `PruneChannels`.
_PRUNING = ("importance", "scope", "multiple_of", "exclude", "compensate", "seed")


def edit(
    context: typer.Context,
    model: ModelFile,
    out: Annotated[
        Path,
        typer.Option(
            help="File of the edited model, .keras; without an ending a folder, for presets."
        ),
    ],
    recipe: Annotated[Path | None, typer.Option(help="File of a recipe, JSON.")] = None,
    step: Annotated[
        list[str] | None,
        typer.Option(
            help="One edit as in Python, such as RemoveLayers(0.25). Repeat it for several edits, "
            "applied in this order."
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            help="An .npz file with x_train, a folder of images, a table or module:function: edits "
            "then refit weights to it, and costs are counted at its size. Labels are needed for "
            "--importance taylor and hessian only."
        ),
    ] = None,
    label: Label = None,
    divide_by: DivideBy = None,
    keep: Annotated[
        str | None,
        typer.Option(help="Prune: share (0.5) or number (16) of the channels to keep."),
    ] = None,
    macs: Macs = None,
    params: Params = None,
    size: Bytes = None,
    memory: Memory = None,
    latency: Latency = None,
    latency_batch: LatencyBatch = None,
    importance: Annotated[
        str | None,
        typer.Option(
            help="Which channels to keep, by magnitude, l1, bn_scale, geometric_median or random; "
            "with --data also reconstruction, activation, apoz, taylor or hessian. Default: "
            "reconstruction with --data, else magnitude."
        ),
    ] = None,
    scope: Annotated[
        Literal["global", "layer", "uniform"],
        typer.Option(
            help="global: the channels of all layers compete. layer: every layer keeps the same "
            "share. uniform: the same, in whole heads of attention, as KerasHub's classes need it."
        ),
    ] = "global",
    multiple_of: Annotated[
        int, typer.Option(min=1, help="Keep a multiple of this many channels in each layer.")
    ] = 1,
    exclude: Annotated[
        list[str] | None,
        typer.Option(help="Name of a layer whose channels all stay. Repeat it for several."),
    ] = None,
    compensate: Annotated[
        bool, typer.Option(help="Refit the remaining weights to --data by least squares.")
    ] = True,
    seed: Annotated[int, typer.Option(min=0, help="Seed of --importance random.")] = 0,
    input_shape: InputShape = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Change the structure of a model: by --recipe, --step, --keep or limits on its costs.

    The options from --importance to --seed are for pruning by --keep or by limits.
    """
    import_keras()
    from saikei.costs import profile
    from saikei.edits.base import read_with_sizes
    from saikei.modelfile import check_model_target, load_model, save_model

    limits = {"macs": macs, "params": params, "bytes": size, "memory": memory, "latency": latency}
    if sum([recipe is not None, bool(step), keep is not None, any(limits.values())]) != 1:
        options = ", ".join(f"--{name}" for name in limits)
        raise InputError(
            f"Choose one way to edit: --recipe, --step, --keep, or limits ({options})."
        )
    if latency is None:
        refuse_typed(context, ["latency_batch"], "it is the batch of --latency, which is missing.")
    if recipe is not None or step:
        refuse_typed(context, _PRUNING, "it is for --keep and limits. Write it in the edit itself.")
    if data is None:
        refuse_typed(context, ["compensate"], "weights are refitted to --data, which is missing.")
    if importance != "random":
        refuse_typed(context, ["seed"], "only --importance random draws numbers.")
    check_model_target(out, overwrite)
    if recipe is not None:
        steps = _read(recipe)
    elif step:
        steps = _typed(step)
    else:
        amount = budget(latency_batch, **limits) if keep is None else number(keep, "--keep")
        names = tuple(exclude or ())
        arguments = importance, scope, multiple_of, names, seed, compensate
        steps = _pruning(amount, *arguments, has_data=data is not None)
    loaded = load_model(model)
    source = optional_data(context, data, loaded, label, divide_by)
    samples = None if source is None else source.need("train")
    sizes = read_with_sizes(loaded, samples, parsed_shape(input_shape)).sizes or None
    edited = steps(loaded, samples, sizes)
    before, after = (profile(m, latency=False, input_shape=sizes) for m in (loaded, edited))
    save_model(edited, out, overwrite)
    if as_json:
        print_json(
            {
                "out": str(out),
                "recipe": steps.to_dict(),
                "before": {name: getattr(before, name) for name in LIMITS[:-1]},
                "after": {name: getattr(after, name) for name in LIMITS[:-1]},
                "sizes": {name: list(shape) for name, shape in after.sizes.items()},
                "assumed": list(after.assumed),
            }
        )
        return
    notes = [f" MACs are counted where {note}." for note in after.size_notes()]
    if not steps.exact:
        notes.append(" The edit is approximate: train the model to restore its accuracy.")
    print_text(
        f"{out}: {after.params:,} parameters ({after.params / before.params:.1%}), "
        f"{after.macs:,} MACs ({after.macs / max(before.macs, 1):.1%}), {after.bytes:,} bytes of "
        f"weights, {after.memory:,} of activations.{''.join(notes)}"
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
    scope: Literal["global", "layer", "uniform"],
    multiple_of: int,
    exclude: tuple[str, ...],
    seed: int,
    compensate: bool,
    has_data: bool,
) -> Recipe:
    from saikei.edits import PruneChannels, Recipe
    from saikei.importance import CRITERIA

    criterion = CRITERIA.get(importance or "")
    if criterion is not None and criterion.needs != "nothing" and not has_data:
        raise InputError(f"--importance {importance} needs --data with x_train.")
    edit = PruneChannels(
        keep,
        importance,
        scope,
        multiple_of,
        exclude=exclude,
        seed=seed,
        compensate=compensate,
    )
    return Recipe([edit])
