"""The data of a command: `--data` with `--label` and `--divide-by`."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

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
    if data is None:
        refuse_typed(context, ["label", "divide_by"], "it is for --data, which is missing.")
        return None
    return read_data(data, model, label, divide_by, labels)


def read_data(
    data: str, model: keras.Model, label: str | None, divide_by: float | None, labels: bool
) -> Archive:
    """What `--data` names, as the model takes it; for a task of KerasHub, without preprocessor.

    Args:
        data: The text of `--data`.
        model: The model that the data is for.
        label: The text of `--label`.
        divide_by: The number of `--divide-by`.
        labels: Whether the data must have labels; those of a language model are in its texts.
    """
    import keras
    import numpy as np

    from saikei.batches import need_labels
    from saikei.hub import task_data
    from saikei.hub.family import is_task
    from saikei.sources import read_source

    if not is_task(model):
        return read_source(data, model, label=label, divide_by=divide_by, labels=labels)
    taken = model
    if getattr(model.preprocessor, "tokenizer", None) is not None:
        # A table has a column of texts where the model itself takes tokens.
        text = keras.KerasTensor((None,), "string", name="text")
        taken = SimpleNamespace(name=model.name, inputs=[text], outputs=model.outputs)
    source = read_source(data, taken, label=label, divide_by=divide_by, labels=False)

    def made(name: str) -> Any:
        part = getattr(source, name)
        if part is None:
            return None
        data = task_data(model, part, name)
        whole = (data, None) if isinstance(data, (dict, np.ndarray)) else data
        if labels and isinstance(whole, tuple):
            need_labels(whole[1], name)
        return whole

    train, validation, test = (made(name) for name in ("train", "validation", "test"))
    return replace(source, train=train, validation=validation, test=test)
