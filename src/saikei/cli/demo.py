"""`saikei demo`: `optimize` on a small data set that needs no or little download."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from saikei.cli.optimize import given, show
from saikei.cli.options import Effort, Json, Seed, budget
from saikei.cli.output import import_keras, print_text
from saikei.errors import InputError

if TYPE_CHECKING:
    import keras

    from saikei.data import Splits


class DemoData(StrEnum):
    """Data sets of the demo."""

    DIGITS = "digits"
    FASHION_MNIST = "fashion-mnist"


def demo(
    dataset: Annotated[DemoData, typer.Option(help="Images to classify.")] = DemoData.DIGITS,
    macs: Annotated[
        str,
        typer.Option(
            help="Limit on multiply-accumulates per sample: a share of the network's with a "
            "decimal point (0.25), or a count (500000)."
        ),
    ] = "0.25",
    effort: Effort = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the run. Default: a folder under demo-run/ named after the options."
        ),
    ] = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Train a small network on images, then find the best model at a quarter of its MACs.

    The same command continues a run that was stopped.
    """
    limits = budget(macs=macs)
    import_keras()
    from saikei.scoring import evaluate
    from saikei.search import optimize
    from saikei.training import fit

    splits = _load(dataset, seed)
    if splits.test is None:
        raise InputError(f"The data set '{dataset}' has no test part.")
    # Ten classes in both; the digits are small, so their convolutions are padded.
    model = baseline(splits.train[0].shape[1:], 10, seed)
    if not as_json:
        print_text(f"Training the baseline on {len(splits.train[0]):,} images of {dataset}.")
    few = dataset is DemoData.DIGITS
    fit(
        model,
        splits.train,
        splits.validation,
        epochs=20 if few else 8,
        # Small batches where samples are few, so that there are enough steps.
        batch_size=16 if few else 64,
        seed=seed,
        progress=not as_json,
    )
    if not as_json:
        print_text(f"Baseline: {evaluate(model, splits.validation)} on validation.")
    result = optimize(
        model,
        splits.train,
        splits.validation,
        limits,
        test=splits.test,
        out=out or _folder(dataset, macs, effort, seed),
        progress=not as_json,
        **given(effort=effort, seed=seed),
    )
    show(result, as_json)


def baseline(shape: tuple[int, ...], classes: int, seed: int) -> keras.Model:
    """The seed network: Conv 32, 64, 64 and Dense 64, all 3×3 and ReLU, for images of any size.

    Args:
        shape: `(height, width, channels)`.
        classes: Number of classes.
        seed: Seed of the initial weights.
    """
    import keras
    from keras import layers

    from saikei.graph import fresh_model

    padding = "valid" if shape[0] >= 28 else "same"
    model = keras.Sequential(
        [
            keras.Input(shape),
            layers.Conv2D(32, 3, padding=padding, activation="relu", name="conv1"),
            layers.MaxPooling2D(name="pool1"),
            layers.Conv2D(64, 3, padding=padding, activation="relu", name="conv2"),
            layers.MaxPooling2D(name="pool2"),
            layers.Conv2D(64, 3, padding=padding, activation="relu", name="conv3"),
            layers.Flatten(name="flatten"),
            layers.Dense(64, activation="relu", name="dense"),
            layers.Dense(classes, activation="softmax", name="classes"),
        ],
        name="baseline",
    )
    return fresh_model(model, seed)


def _load(dataset: DemoData, seed: int) -> Splits:
    from saikei import datasets

    return datasets.digits(seed) if dataset is DemoData.DIGITS else datasets.fashion_mnist()


def _folder(dataset: DemoData, macs: str, effort: int | None, seed: int) -> Path:
    """A folder for these options, so that other options are another run."""
    parts = {"macs": macs, "effort": effort, "seed": seed}
    options = "-".join(f"{name}{value}" for name, value in parts.items() if value is not None)
    return Path("demo-run") / f"{dataset}-{options}"
