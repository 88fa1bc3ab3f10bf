"""Class names of data, compared with the outputs of a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from saikei.errors import DataError


def check_classes(model: Any, classes: Sequence[str], where: str) -> None:
    """Refuse classes that are not as many as the model has outputs.

    Args:
        model: A built model; one with several outputs is not checked.
        classes: Names of the classes, in the order of their numbers.
        where: What the classes come from, for messages.

    Raises:
        DataError: If there is one class only, or their number is not that of the outputs.
    """
    if len(classes) < 2:
        raise DataError(
            f"{where} holds one class only ('{classes[0]}'): there is nothing to distinguish; "
            "give data of all classes."
        )
    outputs = getattr(model, "outputs", None) or []
    size = outputs[0].shape[-1] if len(outputs) == 1 and len(outputs[0].shape) > 1 else None
    expected = 2 if size == 1 else size
    if expected is not None and expected != len(classes):
        raise DataError(
            f"{where} holds {len(classes)} classes ({shortened(classes)}), but model "
            f"'{model.name}' has outputs for {expected}: give the data that it was trained for."
        )


def shortened(names: Sequence[str], most: int = 6) -> str:
    """Names separated by commas, the first few of many."""
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown}, … and {len(names) - most} more"
