"""Options that several commands share, and how their text becomes values."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any

import typer

from saikei.budget import Budget
from saikei.errors import InputError

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace the file --out if it exists.")
]
Seed = Annotated[int, typer.Option(min=0, help="Of everything random.")]
ModelFile = Annotated[Path, typer.Argument(metavar="MODEL.keras", help="A saved Keras 3 model.")]
Macs = Annotated[
    str | None,
    typer.Option(help="Limit on multiply-accumulates per sample: 0.25 is a share, 500000 a count."),
]
Params = Annotated[
    str | None, typer.Option(help="Limit on parameters: 0.25 is a share, 100000 a count.")
]
Latency = Annotated[
    str | None,
    typer.Option(help="Limit on the time of a batch: 0.5 is a share, 3.5 milliseconds."),
]
InputShape = Annotated[
    list[str] | None,
    typer.Option(
        help="Where the model takes inputs of any size: the shape of a sample without the batch, "
        "224,224,3; of several inputs NAME=224,224,3, repeated."
    ),
]
Trials = Annotated[
    int | None, typer.Option(min=1, help="Architectures to try; each trains with its rival.")
]
Epochs = Annotated[int | None, typer.Option(min=1, help="Of each training.")]


def number(text: str, option: str) -> float | int:
    """A count (`500000`), or a share or measure (`0.25`).

    Args:
        text: what was typed.
        option: its name, for the message.

    Raises:
        InputError: when it is no number.
    """
    try:
        return int(text.replace("_", ""))
    except ValueError:
        pass
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if math.isnan(value):
        raise InputError(f"{option} {text!r} is no number: write a share such as 0.25, or a count.")
    return value


def input_shape(texts: list[str] | None) -> Any:
    """The shapes of `--input-shape`; `None` when it is not given.

    Args:
        texts: what was typed, each time.

    Raises:
        InputError: when one is no shape.
    """
    if not texts:
        return None
    parts = [text.rpartition("=") for text in texts]
    shapes = {name: _sizes(shape) for name, _, shape in parts}
    if len(texts) == 1 and "" in shapes:
        return shapes[""]
    if "" in shapes or len(shapes) < len(texts):
        raise InputError(
            f"--input-shape is given {len(texts)} times: write the name of an input before each "
            "shape, as NAME=224,224,3, and each name once."
        )
    return shapes


def _sizes(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(size) for size in text.replace("x", ",").split(","))
    except ValueError as error:
        raise InputError(
            f"--input-shape {text!r} is no shape: write whole numbers with commas between them, "
            "without the batch axis: 224,224,3."
        ) from error


def budget(macs: str | None, params: str | None, latency: str | None) -> Budget:
    """The budget of the options.

    Raises:
        InputError: when none is given, or one is malformed.
    """
    given = {"--macs": macs, "--params": params, "--latency": latency}
    limits = {
        option[2:]: number(text, option) for option, text in given.items() if text is not None
    }
    if not limits:
        raise InputError("No budget is given: add --macs, --params or --latency.")
    return Budget.from_dict(limits)
