"""The data of a command: `--data` with `--label` and `--divide-by`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from saikei.cli.options import refuse_typed

if TYPE_CHECKING:
    import keras

    from saikei.npz import Archive


def optional_data(
    context: typer.Context,
    data: str | None,
    model: keras.Model,
    label: str | None,
    divide_by: float | None,
    labels: bool = False,
) -> Archive | None:
    """What `--data` names; `None` if it is not given.

    Args:
        context: Context of the command.
        data: The text of `--data`.
        model: The model that the data is for.
        label: The text of `--label`.
        divide_by: The number of `--divide-by`.
        labels: Whether the data must have labels.
    """
    from saikei.sources import read_source

    if data is None:
        refuse_typed(context, ["label", "divide_by"], "it is for --data, which is missing.")
        return None
    return read_source(data, model, label=label, divide_by=divide_by, labels=labels)
