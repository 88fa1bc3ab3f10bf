"""Columns of a table as the inputs of a model."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saikei.errors import DataError
from saikei.sources.classes import shortened


def inputs_of(
    model: Any, columns: Mapping[str, NDArray[Any]], path: Path, labelled: bool = True
) -> Any:
    """The arrays that a model takes, made of the columns of a table.

    A model with one input takes all columns in their order. Of several inputs, each takes the
    column of its name, or the columns whose names begin with its name and a dot.

    Args:
        model: A built model.
        columns: The texts of each column but the labels.
        path: Path of the table, for messages.
        labelled: Whether the column of labels was named and is not among the columns.

    Returns:
        One array `(n, …)`, or a dictionary of them by the name of the input.

    Raises:
        DataError: If columns are missing or left over, or hold texts where numbers are needed.
    """
    inputs = getattr(model, "inputs", None)
    if not inputs:
        raise DataError(
            f"Model '{model.name}' does not show its inputs, so that columns cannot be matched to "
            "them: give an .npz or module:function."
        )
    shapes = {tensor.name: tuple(tensor.shape[1:]) for tensor in inputs}
    texts = {tensor.name: str(tensor.dtype) == "string" for tensor in inputs}
    if len(inputs) == 1:
        name = inputs[0].name
        _check_label(columns, shapes[name], labelled, path)
        return _array(columns, shapes[name], texts[name], f"Model '{model.name}'", path)
    taken: dict[str, dict[str, NDArray[Any]]] = {
        name: {
            column: values
            for column, values in columns.items()
            if column == name or column.startswith(f"{name}.")
        }
        for name in shapes
    }
    known = {column for one in taken.values() for column in one}
    missing = [name for name, one in taken.items() if not one]
    left = [column for column in columns if column not in known]
    if missing or left:
        problem = f"no column for {shortened(missing)}" if missing else ""
        problem += " and " if missing and left else ""
        problem += f"columns for no input ({shortened(left)})" if left else ""
        raise DataError(
            f"'{path}' has {problem}; model '{model.name}' takes {shortened(list(shapes), 12)}: "
            "name columns after the inputs, as NAME, or NAME.1, NAME.2, … for several."
        )
    return {
        name: _array(taken[name], shape, texts[name], f"Input '{name}'", path)
        for name, shape in shapes.items()
    }


def _check_label(
    columns: Mapping[str, NDArray[Any]],
    shape: tuple[int | None, ...],
    labelled: bool,
    path: Path,
) -> None:
    """Refuse a table with one column too many, where no column of labels is named."""
    count = math.prod(size or 0 for size in shape)
    if not labelled and len(columns) == count + 1:
        raise DataError(
            f"'{path}' has {len(columns):,} columns, and the model takes {count:,}: name the "
            f"column of labels with --label, such as --label {list(columns)[-1]}."
        )


def _array(
    columns: Mapping[str, NDArray[Any]],
    shape: tuple[int | None, ...],
    text: bool,
    who: str,
    path: Path,
) -> NDArray[Any]:
    """Columns as one array of the shape of an input."""
    count = None if None in shape else math.prod(size for size in shape if size is not None)
    if count is None and len(shape) == 1:
        count, shape = len(columns), (len(columns),)
    if count != len(columns):
        takes = "inputs of unknown size" if count is None else f"{count:,} numbers a row"
        raise DataError(
            f"{who} takes {takes}, and '{path}' has {len(columns):,} columns besides the labels "
            f"({shortened(list(columns))}): keep only those that it takes, in their order."
        )
    if text:
        found = np.stack([column.astype(object) for column in columns.values()], axis=-1)
    else:
        found = np.stack([_numbers(n, column, path) for n, column in columns.items()], axis=-1)
    return found.reshape((len(found), *(size or 1 for size in shape)))


def _numbers(name: str, column: NDArray[Any], path: Path) -> NDArray[np.float32]:
    try:
        found = column.astype(np.float64)
    except ValueError as error:
        row = next(number for number, value in enumerate(column) if not is_number(value))
        if is_number(column[row].replace(",", ".")):
            raise DataError(
                f"Column '{name}' of '{path}' holds '{column[row]}' in row {row + 1}: write "
                "numbers with a point, not a comma."
            ) from error
        raise DataError(
            f"Column '{name}' of '{path}' holds '{column[row]}' in row {row + 1}, and the model "
            "takes numbers: encode it as numbers, or leave the column out."
        ) from error
    if not np.isfinite(found).all():
        row = int(np.flatnonzero(~np.isfinite(found))[0])
        raise DataError(
            f"Column '{name}' of '{path}' holds '{column[row]}' in row {row + 1}: give a finite "
            "number."
        )
    return found.astype(np.float32)


def is_number(text: str) -> bool:
    """Whether a text is a number."""
    try:
        float(text)
    except ValueError:
        return False
    return True
