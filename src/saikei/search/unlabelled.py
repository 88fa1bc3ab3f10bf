"""Data without labels: the predictions of the original take their place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import keras

from saikei.batches import as_arrays, own_labels
from saikei.checks import check_inputs, input_count
from saikei.data import arrays
from saikei.dataset_batches import dataset_length, first_batch
from saikei.errors import DataError
from saikei.runs.record import Decision
from saikei.scoring import infer_tasks
from saikei.training.targets import Targets

_NAMES = ("train", "validation", "test")


@dataclass(frozen=True)
class LabelledParts:
    """Data with labels in every part.

    Args:
        parts: Train, validation and test data as given, or as arrays with predictions as labels;
            `None` for a part that was not given.
        decision: What was used as labels; `None` if all parts have labels.
    """

    parts: tuple[Any, Any, Any] = field(repr=False)
    decision: Decision | None = None


def with_labels(
    models: Mapping[str, keras.Model], train: Any, validation: Any, test: Any
) -> LabelledParts:
    """Use the predictions of the original as labels of the parts that have none.

    Args:
        models: The given models by name.
        train: `(x, y)` or `x`, or a dataset of either.
        validation: Data in the same forms, or `None`.
        test: Data in the same forms, or `None`.

    Raises:
        DataError: If there are no labels but several models, or the data cannot be read.
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
            f"The {lacking[0]} data has no labels to find the best of {len(models)} models by: "
            "give (x, y), or a single model, whose predictions then serve as labels."
        )
    loss = _loss_of(model, parts, lacking)
    targets = Targets.of(model, model)
    for index, name in enumerate(_NAMES):
        if name in lacking:
            x = arrays(parts[index], name, labels=False, inputs=input_count(model))[0]
            check_inputs(model, x, name)
            parts[index] = (x, targets.labels(x, loss, hard=True))
    reason = (
        f"The {' and '.join(lacking)} data has no labels: scores on it are the agreement of a "
        "candidate with the original, whose predictions count as correct."
    )
    return LabelledParts(
        (parts[0], parts[1], parts[2]), Decision("labels", "predictions of the original", reason)
    )


def _in_tuple(model: keras.Model, part: Any, name: str) -> Any:
    """Arrays as one tuple, however they were nested; a dataset unchanged if it is finite."""
    if part is None:
        return None
    whole = as_arrays(part, name, labels=False, inputs=input_count(model), as_is=True)
    if whole is None:
        dataset_length(part, name)
        return part
    # Inputs keep their names: other models may read others of them.
    y = own_labels(model, whole.y)
    weights = own_labels(model, whole.weights, "Sample weights")
    return (whole.x, y) if weights is None else (whole.x, y, weights)


def _has_labels(model: keras.Model, part: Any, name: str) -> bool:
    if isinstance(part, tuple):
        return part[1] is not None
    batch = first_batch(part, name, labels=False, inputs=input_count(model))
    check_inputs(model, batch.x, name, batch=True)
    return batch.y is not None


def _loss_of(model: keras.Model, parts: list[Any], lacking: list[str]) -> Any:
    """The loss that fits the given labels, so that all parts have labels of the same form."""
    for part, name in zip(parts, _NAMES, strict=True):
        if part is None or name in lacking:
            continue
        y = part[1] if isinstance(part, tuple) else first_batch(part, name).y
        return [task.loss for task in infer_tasks(model, y)]
    return None
