"""`saikei optimize`: the search for the best model within a budget, on a user's own data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from saikei.cli.data import read_data
from saikei.cli.options import (
    Bytes,
    Count,
    DivideBy,
    Effort,
    Json,
    Label,
    Latency,
    LatencyBatch,
    Macs,
    Memory,
    Params,
    Seed,
    budget,
)
from saikei.cli.output import import_keras, print_json, print_text
from saikei.errors import InputError

_SEARCH = "What is tried"
_MACHINES = "Where it runs (the result is the same)"
_PROGRESS = "Progress"


def optimize(
    models: Annotated[
        list[Path],
        typer.Argument(
            metavar="MODEL.keras",
            help="One trained model, or several with the same outputs: files, or presets of "
            "KerasHub.",
        ),
    ],
    data: Annotated[
        str,
        typer.Option(
            help="An .npz file with x_train and y_train; optionally x_val and y_val (default: a "
            "fifth of x_train) and x_test and y_test. Several inputs or outputs are named behind a "
            "dot, such as x_train.image and x_train.table; each model reads those of its own "
            "names. Or a folder of images with a sub-folder for each class, a .csv or .parquet "
            "table (with --label), a .txt file with a text in each line (for a language model), or "
            "module:function, which is called and returns data. Without "
            "labels, the predictions of the one model take their place."
        ),
    ],
    out: Annotated[
        Path, typer.Option(help="Folder of the run. The same command continues a stopped run.")
    ],
    label: Label = None,
    divide_by: DivideBy = None,
    macs: Macs = None,
    params: Params = None,
    size: Bytes = None,
    memory: Memory = None,
    latency: Latency = None,
    latency_batch: LatencyBatch = None,
    count: Count = None,
    methods: Annotated[
        str | None,
        typer.Option(
            help="Edits and fusions that take part, separated by commas, of prune, remove_layers, "
            "factorize, separate, kernel, activation, pooling, head, quantize, average, greedy, "
            "stack, cascade, soup, multimodal and boost. Default: all but boost, which needs "
            "epochs of its own.",
            rich_help_panel=_SEARCH,
        ),
    ] = None,
    effort: Effort = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="A training setting: one value (temperature=2), a range (learning_rate=1e-4:1e-2) "
            "or choices (batch_size=32,64). Can be repeated. Names: learning_rate, optimizer, "
            "weight_decay, batch_size, temperature, alpha, label_smoothing, mixup, decay.",
            rich_help_panel=_SEARCH,
        ),
    ] = None,
    no_rivals: Annotated[
        bool,
        typer.Option(
            "--no-rivals",
            help="Do not train the winner's structure from fresh weights for comparison; the "
            "winner is trained about twice as long instead.",
            rich_help_panel=_SEARCH,
        ),
    ] = False,
    repeats: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="How often the winner is trained, each time with another seed, to report mean and "
            "interval. Default: once.",
            rich_help_panel=_SEARCH,
        ),
    ] = None,
    uniform: Annotated[
        bool,
        typer.Option(
            "--uniform",
            help="Try only structures with the same width in all blocks, whole heads of attention, "
            "or fewer blocks: a model of KerasHub then stays of its class.",
            rich_help_panel=_SEARCH,
        ),
    ] = False,
    workers: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Processes that train candidates. Default: in this process.",
            rich_help_panel=_MACHINES,
        ),
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option(
            help="Address of a Ray cluster that trains candidates, or auto for the one here.",
            rich_help_panel=_MACHINES,
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
            "accuracy, or the squared error for regression, or nats (mean log-loss of a token) for "
            "a language model.",
            rich_help_panel=_SEARCH,
        ),
    ] = None,
    quiet: Annotated[
        bool,
        typer.Option(
            "--quiet",
            help="Show no progress, only the result.",
            rich_help_panel=_PROGRESS,
        ),
    ] = False,
    jsonl: Annotated[
        Path | None,
        typer.Option(
            help="File to which each event of the search is appended as a line of JSON.",
            rich_help_panel=_PROGRESS,
        ),
    ] = None,
    tensorboard: Annotated[
        Path | None,
        typer.Option(
            help="Folder to log the candidates' scores and costs to, for TensorBoard.",
            rich_help_panel=_PROGRESS,
        ),
    ] = None,
    mlflow: Annotated[
        bool,
        typer.Option(
            "--mlflow",
            help="Log the candidates' scores and costs to MLflow.",
            rich_help_panel=_PROGRESS,
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Find the best model within a budget, such as --macs 0.25, and write it with a report.

    Edits the models, trains what fits the budget, and fuses it where that is better. A run that was
    stopped, such as by Ctrl-C, goes on with the same command.
    """
    limits = budget(
        latency_batch, count, macs=macs, params=params, bytes=size, memory=memory, latency=latency
    )
    import_keras()
    from saikei.modelfile import load_model
    from saikei.search import json_lines
    from saikei.search import mlflow as to_mlflow
    from saikei.search import optimize as search
    from saikei.search import tensorboard as to_tensorboard

    events = [json_lines(jsonl)] if jsonl is not None else []
    events += [to_tensorboard(tensorboard)] if tensorboard is not None else []
    events += [to_mlflow(run_name=out.name)] if mlflow else []
    loaded = [load_model(path) for path in models]
    splits = read_data(data, loaded[0], label, divide_by, labels=False)
    result = search(
        loaded if len(loaded) > 1 else loaded[0],
        splits.need("train"),
        splits.validation,
        limits,
        test=splits.test,
        out=out,
        latency=not no_latency,
        progress=not (as_json or quiet),
        events=events,
        **given(
            methods=None if methods is None else methods.replace(" ", "").split(","),
            effort=effort,
            settings=settings_typed(settings or []) or None,
            rivals=False if no_rivals else None,
            repeats=repeats,
            uniform=uniform or None,
            seed=seed,
            metric=metric,
            class_names=splits.classes or None,
            workers=workers,
            ray=ray,
        ),
    )
    show(result, as_json)


def settings_typed(pairs: list[str]) -> dict[str, Any]:
    """Training settings as typed: a value, a range `low:high`, or choices `a,b`.

    Args:
        pairs: Texts such as `"batch_size=32,64"`.

    Raises:
        InputError: If a text has no name or no value.
    """
    found: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not (name and equals and text):
            raise InputError(f"--set {pair}: write NAME=VALUE, such as --set batch_size=32,64.")
        if ":" in text:
            low, _, high = text.partition(":")
            found[name] = (_value(low), _value(high))
        elif "," in text:
            found[name] = [_value(one) for one in text.split(",")]
        else:
            found[name] = _value(text)
    return found


def _value(text: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def given(**options: Any) -> dict[str, Any]:
    """The options that were given; the others keep the defaults of the library."""
    return {name: value for name, value in options.items() if value is not None}


def show(result: Any, as_json: bool) -> None:
    """Print the result of a run and where its files are."""
    from saikei.report import text_report

    best, page = result.folder / "best.keras", result.folder / "report.html"
    if as_json:
        print_json({"best": str(best), "report": str(page), "run": result.run.to_dict()})
        return
    print_text(text_report(result.run))
    int8 = "" if result.int8_file is None else f"int8:   {result.int8_file}\n"
    print_text(f"Model:  {best}\n{int8}Report: {page}")
