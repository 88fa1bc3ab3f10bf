"""`saikei merge`: merge files of weights, tensor by tensor."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from saikei.cli.options import Json, Overwrite
from saikei.cli.output import import_keras, print_json, print_text
from saikei.errors import InputError


class Missing(StrEnum):
    """What to do with tensors that are not in all files."""

    ERROR = "error"
    KEEP = "keep"


class Rows(StrEnum):
    """How many rows an embedding has where the files have other numbers of them."""

    ERROR = "error"
    FIRST = "first"
    CUT = "cut"
    PAD = "pad"


class Precision(StrEnum):
    """The floats of the merged file."""

    FLOAT32 = "float32"
    FLOAT16 = "float16"
    BFLOAT16 = "bfloat16"


def merge(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE…",
            help="Two or more .safetensors, .weights.h5 or .keras files, or folders of shards; "
            "with --blocks the same one may be given several times.",
        ),
    ],
    out: Annotated[Path, typer.Option(help="The merged file, of the same kind.")],
    with_: Annotated[
        str,
        typer.Option(
            "--with",
            help="uniform, slerp, ema, task_arithmetic, ties, dare, model_stock, or a method as "
            "in Python: Linear(weights=(0.3, 0.7)), Ties(density=0.3).",
        ),
    ] = "uniform",
    base: Annotated[
        Path | None,
        typer.Option(help="The file of the model that all were fine-tuned from, if needed."),
    ] = None,
    tensors: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN=METHOD",
            help="Another method for tensors whose names fit a pattern, such as "
            '"*.mlp.*=Linear(weights=(0.2, 0.8))"; may be repeated, the first that fits counts.',
        ),
    ] = None,
    missing: Annotated[
        Missing,
        typer.Option(help="Tensors that are not in all files: refuse them, or keep the first's."),
    ] = Missing.ERROR,
    rows: Annotated[
        Rows,
        typer.Option(
            help="Embeddings of other numbers of rows: merge the rows that all have, with those "
            "of the first file in all, the fewest (cut) or the most (pad)."
        ),
    ] = Rows.ERROR,
    dtype: Annotated[
        Precision | None,
        typer.Option(help="The precision of the result; members may then have other ones."),
    ] = None,
    blocks: Annotated[
        list[str] | None,
        typer.Option(
            metavar="START:STOP",
            help="Stack blocks instead of merging: once for each FILE, the blocks to take of it.",
        ),
    ] = None,
    check: Annotated[
        bool, typer.Option(help="Refuse files whose kernels do not correlate.")
    ] = True,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Merge files of weights of any size, one tensor at a time, without data or a model."""
    import_keras()
    from saikei.merging import merge_files, stack_blocks

    precision: Any = None if dtype is None else dtype.value
    if blocks:
        slices = _slices(files, blocks)
        made = stack_blocks(slices, out, dtype=precision, overwrite=overwrite).to_dict()
    else:
        made = merge_files(
            files,
            out,
            _method(with_, "--with"),
            base=base,
            methods=_by_pattern(tensors or []),
            missing=missing.value,
            rows=rows.value,
            dtype=precision,
            check=check,
            overwrite=overwrite,
        ).to_dict()
    if as_json:
        print_json(made)
        return
    correlation = (
        "" if made["correlation"] is None else f"; least correlation {made['correlation']:.3f}"
    )
    print_text(
        f"{made['path']}: {made['tensors']:,} tensors, {made['nbytes']:,} bytes{correlation}."
    )


def _method(typed: str, option: str) -> Any:
    """A method from its name, or typed as a call."""
    from saikei.cli.steps import parse_call
    from saikei.merging.names import METHODS, NAMED

    return typed if typed in NAMED else parse_call(typed, METHODS, option)


def _by_pattern(typed: list[str]) -> dict[str, Any]:
    """Methods by patterns for the names of tensors, typed as `PATTERN=METHOD`."""
    found = {}
    for text in typed:
        pattern, equals, method = text.partition("=")
        if not equals or not pattern:
            raise InputError(f"--tensors {text!r} is no PATTERN=METHOD, such as '*.mlp.*=slerp'.")
        found[pattern] = _method(method, "--tensors")
    return found


def _slices(files: list[Path], blocks: list[str]) -> list[tuple[Path, int, int]]:
    """The blocks to take of each file, typed as `START:STOP`."""
    if len(files) != len(blocks):
        raise InputError(
            f"--blocks is given {len(blocks)} times for {len(files)} files: give it for each, in "
            "their order."
        )
    found = []
    for file, text in zip(files, blocks, strict=True):
        start, colon, stop = text.partition(":")
        if not (colon and start.isdigit() and stop.isdigit()):
            raise InputError(f"--blocks {text!r} is no START:STOP, such as 0:12.")
        found.append((file, int(start), int(stop)))
    return found
