"""Data without labels: what the original predicts takes their place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import keras

from saikei.batches import as_arrays, dataset_length, first_batch
from saikei.data import arrays, check_inputs, input_count
from saikei.errors import DataError
from saikei.runs.record import Decision
from saikei.scoring import infer_tasks
from saikei.training.targets import Targets

_NAMES = ("train", "validation", "test")


@dataclass(frozen=True)
class LabelledParts:
    """Data of which every part has labels.

    Args:
        parts: train, validation and test as they were given, or as arrays with predictions in the
            place of labels; `None` where a part was not given.
        decision: what took the place of labels, where there were none.
    """

    parts: tuple[Any, Any, Any] = field(repr=False)
    decision: Decision | None = None


def with_labels(
    models: Mapping[str, keras.Model], train: Any, validation: Any, test: Any
) -> LabelledParts:
    """Give the parts of the data that have no labels those that the original predicts.

    Args:
        models: that were given.
        train: `(x, y)` or `x`, or a dataset of either.
        validation: likewise, or `None`.
        test: likewise, or `None`.

    Raises:
        DataError: when there are no labels, and several models, or the data is unfit to be read.
    """
    model = next(iter(models.values()))
    given = (train, validation, test)
    parts = [_in_tuple(model, part, name) for part, name in zip(given, _NAMES, strict=True)]
    lacking = [
        name
        for part, name in zip(parts, _NAMES, strict=True)
        if part is not None and not _has_labels(model, part, name)
    ]
    if not lacking:
        return LabelledParts((parts[0], parts[1], parts[2]))
    if len(models) > 1:
        raise DataError(
            f"The {lacking[0]} data holds no labels, so nothing tells which of {len(models)} "
            "models is the best: give (x, y), or one model, which its predictions then stand for."
        )
    loss = _loss_of(model, parts, lacking)
    targets = Targets.of(model, model)
    for place, name in enumerate(_NAMES):
        if name in lacking:
            x = arrays(parts[place], name, labels=False, inputs=input_count(model))[0]
            check_inputs(model, x, name)
            parts[place] = (x, targets.labels(x, loss, hard=True))
    reason = (
        f"The {' and '.join(lacking)} data holds none: scores on it say how far a candidate agrees "
        "with the original, which counts as right everywhere."
    )
    return LabelledParts(
        (parts[0], parts[1], parts[2]), Decision("labels", "what the original predicts", reason)
    )


def _in_tuple(model: keras.Model, part: Any, name: str) -> Any:
    """Arrays as one tuple, however they were nested; a dataset once it is known to end."""
    if part is None:
        return None
    whole = as_arrays(part, name, labels=False, inputs=input_count(model), as_is=True)
    if whole is None:
        dataset_length(part, name)
        return part
    return (whole.x, whole.y) if whole.weights is None else (whole.x, whole.y, whole.weights)


def _has_labels(model: keras.Model, part: Any, name: str) -> bool:
    if isinstance(part, tuple):
        return part[1] is not None
    batch = first_batch(part, name, labels=False, inputs=input_count(model))
    check_inputs(model, batch.x, name, batch=True)
    return batch.y is not None


def _loss_of(model: keras.Model, parts: list[Any], lacking: list[str]) -> Any:
    """The loss that fits the labels that there are, so that all parts have them in one form."""
    for part, name in zip(parts, _NAMES, strict=True):
        if part is None or name in lacking:
            continue
        y = part[1] if isinstance(part, tuple) else first_batch(part, name).y
        return [task.loss for task in infer_tasks(model, y)]
    return None
