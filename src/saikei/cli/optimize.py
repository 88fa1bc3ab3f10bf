"""`saikei optimize`: the search for the best model within a budget, on a user's own data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from saikei.cli.options import (
    Bytes,
    Json,
    Latency,
    LatencyBatch,
    Macs,
    Memory,
    Params,
    Seed,
    budget,
)
from saikei.cli.output import import_keras, say, say_json


def optimize(
    models: Annotated[
        list[Path],
        typer.Argument(
            metavar="MODEL.keras",
            help="One trained model, or several with the same inputs and outputs.",
        ),
    ],
    data: Annotated[
        Path,
        typer.Option(
            help="An .npz file with x_train and y_train; optionally x_val and y_val (default: a "
            "fifth of x_train) and x_test and y_test. Without labels, the predictions of the one "
            "model take their place."
        ),
    ],
    out: Annotated[
        Path, typer.Option(help="Folder of the run. The same command continues a stopped run.")
    ],
    macs: Macs = None,
    params: Params = None,
    size: Bytes = None,
    memory: Memory = None,
    latency: Latency = None,
    latency_batch: LatencyBatch = None,
    trials: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Architectures to try; each is trained from pruned and from fresh weights. "
            "Default: 4 for one model, 3 n + 1 for n models.",
        ),
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Epochs of each training. Default: 15.")
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Batch size of each training. Default: 16 to 128, by the number of samples.",
        ),
    ] = None,
    seed: Seed = 0,
    no_latency: Annotated[
        bool, typer.Option("--no-latency", help="Do not measure the latency of candidates.")
    ] = False,
    metric: Annotated[
        str | None,
        typer.Option(
            help="Metric to choose by and report, such as auc, f1 or balanced_accuracy. Default: "
            "accuracy, or the squared error for regression."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Find the best model within a budget, such as --macs 0.25, and write it with a report."""
    limits = budget(
        latency_batch, macs=macs, params=params, bytes=size, memory=memory, latency=latency
    )
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
    """The options that were given; the others keep the defaults of the library."""
    return {name: value for name, value in options.items() if value is not None}


def show(result: Any, as_json: bool) -> None:
    """Print the result of a run and where its files are."""
    from saikei.report import text_report

    best, page = result.folder / "best.keras", result.folder / "report.html"
    if as_json:
        say_json({"best": str(best), "report": str(page), "run": result.run.to_dict()})
        return
    say(text_report(result.run))
    say(f"Model:  {best}\nReport: {page}")
