"""The one door for data on the command line: what a text names decides how it is read."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from saikei.errors import DataError, InputError, in_one_line
from saikei.npz import Archive, load_npz
from saikei.sources.functions import call_function
from saikei.sources.images import read_images
from saikei.sources.tables import TABLES, read_tables, tables_in

if TYPE_CHECKING:
    import keras

_KINDS = (
    "give an .npz, a folder of images with a sub-folder for each class, a .csv, .tsv or .parquet "
    "table, or module:function"
)
_FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")


def read_source(
    source: str,
    model: keras.Model,
    *,
    label: str | None = None,
    divide_by: float | None = None,
    labels: bool = True,
) -> Archive:
    """Read data of any kind, in the form that a model takes it.

    Args:
        source: An `.npz` file; a folder of images with a sub-folder for each class; a `.csv`,
            `.tsv` or `.parquet` table; a folder with tables called `train`, `val` and `test`; a
            `.txt` file, of which each line that is not empty is a text without label; or
            `module:function`, which is imported and called.
        model: The model that the data is for: its inputs give the size and colours of images and
            the columns of a table.
        label: Name of the column of a table that holds the labels.
        divide_by: What the values of images, 0 to 255, are divided by; `None` leaves them.
        labels: Whether the data must have labels.

    Raises:
        DataError: If the data cannot be read or does not fit the model.
        InputError: If `label` or `divide_by` does not apply to the source.
    """
    path = Path(source)
    if source.endswith(".py") or ".py:" in source:
        name = path.name.partition(".py")[0]
        raise DataError(
            f"--data {source}: name a function of the module, without .py: {name}:load."
        )
    if not path.exists() and _FUNCTION.fullmatch(source):
        _refuse(label, divide_by)
        return call_function(source, labels)
    if not path.exists():
        raise DataError(f"There is no file or folder '{source}': {_KINDS}.")
    if path.is_file() and path.suffix.lower() not in (".npz", ".txt", *TABLES, ""):
        raise DataError(f"'{source}' is a {path.suffix} file, which is not read: {_KINDS}.")
    if path.is_dir() and not tables_in(path):
        _refuse(label, None)
        return read_images(path, model, divide_by, labels)
    _refuse(None, divide_by)
    if path.is_dir() or (path.suffix.lower() in TABLES and path.is_file()):
        return read_tables(path, model, label, labels)
    _refuse(label, None)
    if path.suffix.lower() == ".txt":
        texts = _lines(path)
        if labels:
            raise DataError(f"'{path}' holds no labels: give a table with them, and --label.")
        return Archive(path, train=(texts, None), only=True)
    return load_npz(path, labels)


def _lines(path: Path) -> NDArray[np.object_]:
    """The lines of a file that are not empty."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"'{path}' is no text ({in_one_line(error)}): save it as UTF-8.") from error
    texts = [line.strip() for line in lines if line.strip()]
    if not texts:
        raise DataError(f"'{path}' is empty: write a text into each line.")
    return np.array(texts, dtype=object)


def _refuse(label: str | None, divide_by: float | None) -> None:
    if label is not None:
        raise InputError("--label names a column of a table (.csv, .parquet): omit it here.")
    if divide_by is not None:
        raise InputError("--divide-by is for a folder of images: omit it here.")
