"""`saikei optimize`: the main job, on a user's own models and data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from saikei.cli.options import Epochs, Json, Latency, Macs, Params, Seed, Trials, budget
from saikei.cli.output import import_keras, say, say_json


def optimize(
    models: Annotated[
        list[Path], typer.Argument(metavar="MODEL.keras…", help="One trained model, or several.")
    ],
    data: Annotated[
        Path,
        typer.Option(
            help="An .npz: x_train, y_train (or none), optional x_val, y_val, x_test, y_test."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder of the run; the same run is taken up.")],
    macs: Macs = None,
    params: Params = None,
    latency: Latency = None,
    trials: Trials = None,
    epochs: Epochs = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Of each training.")] = None,
    seed: Seed = 0,
    no_latency: Annotated[
        bool, typer.Option("--no-latency", help="Do not measure the time of a batch.")
    ] = False,
    metric: Annotated[
        str | None, typer.Option(help="To choose by and report, such as auc or f1.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Find the best model that fits a budget, and write it with a report."""
    limits = budget(macs, params, latency)
    import_keras()
    from saikei.modelfile import load_model
    from saikei.npz import load_npz
    from saikei.search import optimize as search

    splits = load_npz(data, labels=False)
    loaded = [load_model(path) for path in models]
    result = search(
        loaded if len(loaded) > 1 else loaded[0],
        splits.need("train"),
        splits.validation,
        limits,
        test=splits.test,
        out=out,
        latency=not no_latency,
        progress=not as_json,
        **given(trials=trials, epochs=epochs, batch_size=batch_size, seed=seed, metric=metric),
    )
    show(result, as_json)


def given(**options: Any) -> dict[str, Any]:
    """The options that were given; the others keep the library's defaults."""
    return {name: value for name, value in options.items() if value is not None}


def show(result: Any, as_json: bool) -> None:
    """Print what a run found and where it is."""
    from saikei.report import text_report

    best, page = result.folder / "best.keras", result.folder / "report.html"
    if as_json:
        say_json({"best": str(best), "report": str(page), "run": result.run.to_dict()})
        return
    say(text_report(result.run))
    say(f"Model:  {best}\nReport: {page}")
