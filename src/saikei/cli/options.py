"""Options that several commands share, how their text becomes values, and when they apply."""

from __future__ import annotations

import math
from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from saikei.budget import LIMITS, Budget
from saikei.errors import InputError


class CountOf(StrEnum):
    """Which cost of a cascade a budget limits."""

    WORST = "worst"
    MEAN = "mean"


Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace --out if it exists.")]
Seed = Annotated[int, typer.Option(min=0, help="Seed of everything random.")]
ModelFile = Annotated[
    Path,
    typer.Argument(metavar="MODEL.keras", help="A saved Keras 3 model, or a preset of KerasHub."),
]
_BUDGET = "Budget (one limit or several)"
Macs = Annotated[
    str | None,
    typer.Option(
        help="Limit on multiply-accumulates per sample: a share of the original with a decimal "
        "point (0.25), or a count (500000).",
        rich_help_panel=_BUDGET,
    ),
]
Params = Annotated[
    str | None,
    typer.Option(
        help="Limit on parameters: a share of the original (0.25) or a count (100000).",
        rich_help_panel=_BUDGET,
    ),
]
Bytes = Annotated[
    str | None,
    typer.Option(
        "--bytes",
        help="Limit on the size of the weights in the saved file: a share of the original (0.25) "
        "or bytes (200000).",
        rich_help_panel=_BUDGET,
    ),
]
Memory = Annotated[
    str | None,
    typer.Option(
        help="Limit on the peak of the bytes of live activations per sample: a share of the "
        "original (0.5) or bytes (65536).",
        rich_help_panel=_BUDGET,
    ),
]
Latency = Annotated[
    str | None,
    typer.Option(
        help="Limit on the median time of a batch: a share of the original up to 1 (0.5), or "
        "milliseconds (3.5, '0.5 ms').",
        rich_help_panel=_BUDGET,
    ),
]
LatencyBatch = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Samples in the batch that --latency is for. Default: 32.",
        rich_help_panel=_BUDGET,
    ),
]
Count = Annotated[
    CountOf | None,
    typer.Option(
        help="Whether --macs and --latency limit what a cascade costs in the worst case, where all "
        "its members run, or in the mean of the samples. Default: worst.",
        rich_help_panel=_BUDGET,
    ),
]
Effort = Annotated[
    int | None,
    typer.Option(min=3, help="Total number of epochs of all trainings. Default: 45."),
]
Label = Annotated[
    str | None,
    typer.Option(help="For a table as --data: the name of its column of labels."),
]
DivideBy = Annotated[
    float | None,
    typer.Option(
        help="For images as --data: divide their values, 0 to 255, by this number, such as 255, "
        "if the model has no layer that scales them."
    ),
]
InputShape = Annotated[
    list[str] | None,
    typer.Option(
        help="For a model with axes of unknown size: the shape of one sample without the batch "
        "axis, such as 224,224,3. With several inputs, repeat NAME=224,224,3 for each."
    ),
]


def refuse_typed(context: typer.Context, names: Iterable[str], reason: str) -> None:
    """Refuse options that would have no effect, so that none is ignored silently.

    Args:
        context: Context of the command.
        names: Names of the parameters that do not apply.
        reason: Why they do not apply and what to do, to end the message with.
    """
    for parameter in context.command.params:
        source = context.get_parameter_source(parameter.name or "")
        if parameter.name in set(names) and source is not None and source.name == "COMMANDLINE":
            typed = "/".join([*parameter.opts, *parameter.secondary_opts])
            raise InputError(f"{typed} has no effect here: {reason}")


def number(
    text: str, option: str, give: str = "write a share (0.25) or a count (500000)"
) -> float | int:
    """A count (`500000`), or a share or measure (`0.25`).

    Args:
        text: As typed.
        option: The option that it is the value of.
        give: What to write, for the message.

    Raises:
        InputError: If it is not a number.
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
        raise InputError(f"{option} {text!r} is no number: {give}.")
    return value


def input_shape(texts: list[str] | None) -> Any:
    """The shapes of `--input-shape`; `None` if it is not given.

    Args:
        texts: The values as typed, one for each time that the option is given.

    Raises:
        InputError: If one is not a shape.
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


def budget(
    latency_batch: int | None = None, count: CountOf | None = None, /, **texts: str | None
) -> Budget:
    """The budget of the options.

    Args:
        latency_batch: Samples in the batch that the limit on latency is for.
        count: Which cost of a cascade the limits on MACs and latency are for.
        **texts: For each limit, its text as typed; `None` if it is not given.

    Raises:
        InputError: If none is given, or one is malformed.
    """
    limits = {name: _limit(name, text) for name, text in texts.items() if text is not None}
    if not limits:
        options = [f"--{name}" for name in LIMITS]
        raise InputError(
            f"No budget is given: add {', '.join(options[:-1])} or {options[-1]}, for example "
            "--macs 0.25."
        )
    more: dict[str, Any] = {}
    if latency_batch is not None:
        if "latency" not in limits:
            raise InputError("--latency-batch has no effect without --latency: add it.")
        more["batch_size"] = latency_batch
    if count is not None:
        if not {"macs", "latency"} & set(limits):
            raise InputError("--count has no effect without --macs or --latency: add one of them.")
        more["count"] = str(count)
    return Budget.from_dict({**limits, **more})


def _limit(name: str, text: str) -> float | int | str:
    if name != "latency":
        return number(text, f"--{name}")
    if text.rstrip().endswith("ms"):
        return text
    return number(text, "--latency", "write a share (0.5) or milliseconds (3.5, '0.5 ms')")
