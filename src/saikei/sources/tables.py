"""Tables: CSV with the standard library, Parquet with pyarrow, as the inputs of a model."""

from __future__ import annotations

import csv
import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from saikei.data import Arrays
from saikei.errors import DataError, in_one_line
from saikei.npz import Archive
from saikei.sources.classes import check_classes, shortened
from saikei.sources.features import inputs_of, is_number

if TYPE_CHECKING:
    import keras

TABLES = (".csv", ".tsv", ".parquet")
_PARTS = {"train": "train", "val": "validation", "validation": "validation", "test": "test"}
_MISSING = ("", "na", "nan", "n/a", "null", "none", "?")

# For each column, its texts, one for each row.
Table: TypeAlias = Mapping[str, NDArray[Any]]


def tables_in(folder: Path) -> dict[str, Path]:
    """The tables of a folder that are called after a part, such as `train.csv`."""
    found = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in TABLES and path.stem in _PARTS:
            found[_PARTS[path.stem]] = path
    return found


def read_tables(path: Path, model: keras.Model, label: str | None, labels: bool) -> Archive:
    """Read a table, or those of a folder, as inputs and labels of a model.

    Columns become the inputs of the model by their names, or in their order where the model has
    one input. Labels that are texts become numbers in alphabetical order.

    Args:
        path: The file, or a folder with `train.csv` and optionally `val.csv` and `test.csv`.
        model: The model that the data is for.
        label: Name of the column of labels; `None` for data without.
        labels: Whether labels are needed.

    Raises:
        DataError: If a file is malformed, values are missing, or the columns do not fit.
    """
    paths = tables_in(path) if path.is_dir() else {"train": path}
    tables = {part: _read(file) for part, file in paths.items()}
    for part, table in tables.items():
        _check_label(table, label, labels, paths[part])
        _check_missing(table, paths[part])
    columns = [table[label] for table in tables.values()] if label is not None else []
    classes = _class_names(np.concatenate(columns)) if columns else ()
    if classes:
        check_classes(model, classes, f"Column '{label}' of '{path}'")
    parts: dict[str, Arrays] = {}
    for part, table in tables.items():
        features = {name: column for name, column in table.items() if name != label}
        y = None if label is None else _numbered(table[label], classes)
        parts[part] = inputs_of(model, features, paths[part], label is not None), y
    return Archive(path, classes=classes, only=not path.is_dir(), **parts)


def _read(path: Path) -> Table:
    table = _read_parquet(path) if path.suffix.lower() == ".parquet" else _read_csv(path)
    if not table or not len(next(iter(table.values()))):
        raise DataError(f"'{path}' holds no rows: give a table with a row for each sample.")
    return table


def _read_csv(path: Path) -> Table:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            first = file.readline()
            file.seek(0)
            rows = csv.reader(file, delimiter=_delimiter(first, path), strict=True)
            names = [name.strip() for name in next(rows, [])]
            _check_names(names, path)
            values = []
            for row in rows:
                # Lines that are blank hold nothing.
                if row and len(row) != len(names):
                    raise DataError(
                        f"'{path}' has {len(row)} values in line {rows.line_num}, and {len(names)}"
                        " columns: put values with a comma in quotes, and fill the others."
                    )
                if row:
                    values.append(row)
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataError(
            f"'{path}' cannot be read as a table ({in_one_line(error)}): save it as UTF-8 text "
            "with a first line of column names."
        ) from error
    columns = np.char.strip(np.array(values, dtype=str)) if values else np.empty((0, len(names)))
    return {name: columns[:, number] for number, name in enumerate(names)}


def _delimiter(line: str, path: Path) -> str:
    if path.suffix.lower() == ".tsv":
        return "\t"
    return ";" if ";" in line and "," not in line else ","


def _check_names(names: list[str], path: Path) -> None:
    numeric = [name for name in names if is_number(name)]
    # Columns may be called 0, 1, 2, …, and values are not.
    values = [name for name in numeric if not name.isdecimal()]
    numbered = names == [str(number) for number in range(len(names))]
    if not names or "" in names or values or (len(numeric) == len(names) and not numbered):
        raise DataError(
            f"The first line of '{path}' does not name every column: add a line of column names."
        )
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise DataError(f"'{path}' has several columns called '{repeated[0]}': rename them.")


def _read_parquet(path: Path) -> Table:
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise DataError(
            f"'{path}' is read with pyarrow, which is not installed: pip install "
            "'saikei[parquet]', or save the table as .csv."
        ) from error
    try:
        table = parquet.read_table(path)
    # What is in the file decides what pyarrow raises.
    except Exception as error:
        raise DataError(f"'{path}' is no Parquet file ({in_one_line(error)}).") from error
    names = list(table.column_names)
    _check_names(names, path)
    return {
        name: np.array(["" if v is None else str(v) for v in table[name].to_pylist()], dtype=str)
        for name in names
    }


def _check_label(table: Table, label: str | None, labels: bool, path: Path) -> None:
    if label is None and labels:
        raise DataError(
            f"'{path}' is a table: name its column of labels with --label, one of "
            f"{shortened(list(table), 12)}."
        )
    if label is not None and label not in table:
        near = difflib.get_close_matches(label, table, 1)
        fix = f"use '{near[0]}'" if near else f"use one of {shortened(list(table), 12)}"
        raise DataError(f"'{path}' has no column '{label}': {fix}.")


def _check_missing(table: Table, path: Path) -> None:
    """Refuse empty values, and name their rows."""
    for name, column in table.items():
        missing = np.flatnonzero(np.isin(np.char.lower(column), _MISSING))
        if len(missing):
            # The first row of values is row 1.
            rows = ", ".join(str(row + 1) for row in missing[:5])
            rows += f" and {len(missing) - 5:,} more" if len(missing) > 5 else ""
            raise DataError(
                f"Column '{name}' of '{path}' has no value in row{'s' * (len(missing) > 1)} "
                f"{rows}: fill or remove {'these' if len(missing) > 1 else 'this'}."
            )


def _class_names(column: NDArray[Any]) -> tuple[str, ...]:
    """The classes of a column of texts, in alphabetical order; none for a column of numbers."""
    values = np.unique(column)
    return () if all(map(is_number, values)) else tuple(str(value) for value in values)


def _numbered(column: NDArray[Any], classes: tuple[str, ...]) -> NDArray[Any]:
    """Labels as numbers: of classes, as whole numbers where all are, or as they come."""
    if classes:
        return np.searchsorted(np.array(classes), column).astype(np.int64)
    numbers = column.astype(np.float64)
    whole = np.all(numbers == np.round(numbers)) and np.abs(numbers).max() < 2**53
    return numbers.astype(np.int64) if whole else numbers.astype(np.float32)
