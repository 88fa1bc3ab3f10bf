"""`saikei resolve`: the structure for another budget, from the library of a run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from saikei.budget import LIMITS
from saikei.cli.options import (
    Bytes,
    Json,
    Latency,
    LatencyBatch,
    Macs,
    Memory,
    Overwrite,
    Params,
    budget,
)
from saikei.cli.output import import_keras, say, say_json
from saikei.errors import InputError

if TYPE_CHECKING:
    import keras

    from saikei.search.propose import Structure


def resolve(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="Folder of a run, which holds library.json.")
    ],
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
        Path | None,
        typer.Option(help="An .npz file with x_train: the remaining weights are refitted to it."),
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option(help="The original model, .keras. Default: the one in the run's folder."),
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
    from saikei.modelfile import save_model
    from saikei.npz import load_npz
    from saikei.search.library import Library
    from saikei.search.propose import resolve as resolved
    from saikei.writing import check_target, write_text

    check_target(out, ".keras", overwrite)
    recipe = out.with_suffix(".json")
    check_target(recipe, ".json", overwrite)
    library = Library.load(run)
    original = _original(run, model)
    samples = load_npz(data, labels=False).need("train") if data is not None else None
    structure = resolved(library, original, limits, samples)
    made = copy_model(original) if structure.recipe is None else structure.recipe(original, samples)
    save_model(made, out, overwrite)
    if structure.recipe is not None:
        write_text(recipe, structure.recipe.to_json())
    _show(structure, library, out, samples is not None, as_json)


def _original(run: Path, model: Path | None) -> keras.Model:
    """The original of a run.

    Raises:
        InputError: If the run's folder does not hold it and none is given.
    """
    from saikei.modelfile import load_model

    path = run / "candidates" / "original" / "model.keras" if model is None else model
    if model is None and not path.is_file():
        raise InputError(
            f"'{run}' does not hold the original model ('{path}' is missing): give it, --model "
            "model.keras."
        )
    return load_model(path)


def _show(structure: Structure, library: Any, out: Path, refitted: bool, as_json: bool) -> None:
    """Print what was made, and that it is not trained."""
    costs, whole = structure.costs, library.original
    if as_json:
        say_json(
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
    changes = "".join(f"  {o.site}: {o.change}\n" for o in structure.options)
    changes = changes or "  The original keeps the budget: nothing is changed.\n"
    state = "refitted to the data" if refitted else "not refitted (give --data for that)"
    say(
        f"{out}: {costs.params:,} parameters ({costs.params / max(whole.params, 1):.1%}), "
        f"{costs.macs:,} MACs ({costs.macs / max(whole.macs, 1):.1%}), {costs.bytes:,} bytes of "
        f"weights, {costs.memory:,} of activations.\n"
        f"{changes}"
        f"Predicted divergence from the original: {structure.predicted:.3g} {library.unit}. The "
        f"model is not trained; its weights are {state}. Train it before use."
    )
