"""`saikei resolve`: the structure for another budget, from the library of a run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from saikei.budget import LIMITS
from saikei.cli.data import optional_data
from saikei.cli.options import (
    Bytes,
    DivideBy,
    Json,
    Label,
    Latency,
    LatencyBatch,
    Macs,
    Memory,
    Overwrite,
    Params,
    budget,
)
from saikei.cli.output import import_keras, print_json, print_text
from saikei.errors import InputError

if TYPE_CHECKING:
    from saikei.search.propose import Structure


def resolve(
    context: typer.Context,
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run of optimize.")],
    out: Annotated[
        Path,
        typer.Option(help="File of the model, .keras. The recipe is written beside it, .json."),
    ],
    macs: Macs = None,
    params: Params = None,
    size: Bytes = None,
    memory: Memory = None,
    latency: Latency = None,
    latency_batch: LatencyBatch = None,
    data: Annotated[
        str | None,
        typer.Option(
            help="An .npz file with x_train, a folder of images, a table or module:function: the "
            "remaining weights are refitted to it."
        ),
    ] = None,
    label: Label = None,
    divide_by: DivideBy = None,
    original: Annotated[
        str | None,
        typer.Option(
            help="Name of the given model, such as original-2, where the run was over several."
        ),
    ] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Make the structure for another budget from what a run has measured, without training.

    Train the model afterwards: its accuracy is not known before.
    """
    limits = budget(
        latency_batch, macs=macs, params=params, bytes=size, memory=memory, latency=latency
    )
    import_keras()
    from saikei.graph import copy_model
    from saikei.modelfile import load_model, save_model
    from saikei.search.library import Library
    from saikei.search.propose import resolve as resolved
    from saikei.writing import check_target, write_text

    check_target(out, ".keras", overwrite)
    recipe = out.with_suffix(".json")
    check_target(recipe, ".json", overwrite)
    name = _name(run, original)
    library = Library.load(run / "libraries" / name)
    whole = load_model(run / "candidates" / name / "model.keras")
    source = optional_data(context, data, whole, label, divide_by)
    samples = None if source is None else source.need("train")
    structure = resolved(library, whole, limits, samples)
    made = copy_model(whole) if structure.recipe is None else structure.recipe(whole, samples)
    save_model(made, out, overwrite)
    if structure.recipe is not None:
        write_text(recipe, structure.recipe.to_json())
    _show(structure, library, out, samples is not None, as_json)


def _name(run: Path, given: str | None) -> str:
    """The name of the given model whose library is used.

    Raises:
        InputError: If the folder holds no library, or several and none is named.
    """
    found = sorted(path.parent.name for path in run.glob("libraries/*/library.json"))
    if not found:
        raise InputError(
            f"'{run}' holds no library of options: give the folder that saikei optimize wrote "
            "(--out)."
        )
    if given is None and len(found) == 1:
        return found[0]
    if given not in found:
        asked = "The run was over several models" if given is None else f"--original {given}"
        raise InputError(f"{asked}: give --original with one of {', '.join(found)}.")
    return given


def _show(structure: Structure, library: Any, out: Path, refitted: bool, as_json: bool) -> None:
    """Print what was made, and that it is not trained."""
    costs, whole = structure.costs, library.original
    if as_json:
        print_json(
            {
                "out": str(out),
                "trained": False,
                "predicted_loss": structure.predicted,
                "unit": library.unit,
                "before": {name: getattr(whole, name) for name in LIMITS[:-1]},
                "after": {name: getattr(costs, name) for name in LIMITS[:-1]},
                "latency": costs.latency,
                "options": [f"{o.site}: {o.change}" for o in structure.options],
                "recipe": None if structure.recipe is None else structure.recipe.to_dict(),
            }
        )
        return
    if structure.recipe is None:
        changes = "The original keeps the budget: nothing is changed."
    else:
        state = "refitted to the data" if refitted else "not refitted (give --data for that)"
        changes = "".join(f"  {o.site}: {o.change}\n" for o in structure.options) + (
            f"Predicted divergence from the original: {structure.predicted:.3g} {library.unit}. "
            f"The model is not trained; its weights are {state}. Train it before use, such as "
            "with saikei.distill from Python."
        )
    print_text(
        f"{out}: {costs.params:,} parameters ({costs.params / max(whole.params, 1):.1%}), "
        f"{costs.macs:,} MACs ({costs.macs / max(whole.macs, 1):.1%}), {costs.bytes:,} bytes of "
        f"weights, {costs.memory:,} of activations.\n"
        f"{changes}"
    )
