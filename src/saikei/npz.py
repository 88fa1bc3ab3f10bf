"""Data from a NumPy archive, as the command line is given it; nothing in it is unpickled."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saikei.archives import DATA_FLOOR, DATA_RATIO, check_arrays, opened_zip
from saikei.checks import check_values
from saikei.data import Arrays
from saikei.errors import DataError, in_one_line

_FIX = "numpy.savez(path, x_train=…, y_train=…)"
_WHAT = "NumPy archive of numbers"
# As `Archive` calls the parts, and as the file does.
_PARTS = {"train": "train", "validation": "val", "test": "test"}
_NAME = re.compile(r"([xy])_(train|val|test)(?:\.(.+))?")


@dataclass(frozen=True)
class Archive:
    """The parts of a data set in a file, each `(x, y)` or `None` where the file has none.

    Args:
        path: The path of the file.
        train: The part to train on.
        validation: The part to choose by, or to fit a fusion to.
        test: The part to score once, at the end.
        classes: Names of the classes, in the order of their numbers; empty if they are unknown.
        only: Whether the source has a single part, without a name, which serves as whichever
            part is needed.
    """

    path: Path
    train: Arrays | None = None
    validation: Arrays | None = None
    test: Arrays | None = None
    classes: tuple[str, ...] = ()
    only: bool = False

    def part(self, part: str) -> Arrays | None:
        """A part; `None` if the source has none.

        Args:
            part: `"train"`, `"validation"` or `"test"`.
        """
        found: Arrays | None = getattr(self, "train" if self.only else part)
        return found

    def need(self, part: str) -> Arrays:
        """A part that the work cannot do without.

        Args:
            part: `"train"`, `"validation"` or `"test"`.

        Raises:
            DataError: When the file has none.
        """
        found = self.part(part)
        if found is None:
            name = _PARTS[part]
            if self.path.suffix != ".npz":
                raise DataError(
                    f"'{self.path}' holds no {part} data: add a folder, table or entry '{name}'."
                )
            fix = _FIX.replace("train", name)
            raise DataError(f"'{self.path}' holds no 'x_{name}': save the data with {fix}.")
        return found


def load_npz(path: str | Path, labels: bool = True) -> Archive:
    """Read a data set from a NumPy file; nothing in it is unpickled.

    Args:
        path: An `.npz` with the arrays `x_train`, `y_train`, `x_val`, `y_val`, `x_test`, `y_test`,
            or some of these pairs. A model with several inputs or outputs takes one array for
            each, with its name behind a dot, such as `x_train.image`. Arrays whose names do not
            begin with `x_` or `y_` are left alone.
        labels: Whether each part has to have some; where not, it may be `x_train` alone.

    Raises:
        DataError: When the file cannot be read, holds no such arrays, or the arrays are empty, of
            different lengths, hold NaN or infinite numbers, or something else than numbers, and
            texts among the inputs.
    """
    path = Path(path)
    stored = _read(path)
    # A misspelt part must not be left out in silence.
    for key in sorted(stored):
        if _NAME.fullmatch(key) is None:
            known = sorted(f"{side}_{part}" for part in _PARTS.values() for side in "xy")
            raise DataError(
                f"'{path}' holds '{key}': the names are {', '.join(known)}, or with the name of "
                "an input or output behind a dot."
            )
    parts = {name: _part(stored, part, path, labels) for name, part in _PARTS.items()}
    if not any(parts.values()):
        raise DataError(f"'{path}' holds no 'x_train': save the data with {_FIX}.")
    return Archive(path, train=parts["train"], validation=parts["validation"], test=parts["test"])


def _read(path: Path) -> dict[str, NDArray[Any]]:
    if not path.is_file():
        raise DataError(f"There is no file '{path}': give an .npz with x_train and y_train.")
    return read_arrays(path, f"save the data with {_FIX}", ("x_", "y_"))


def read_arrays(path: Path, fix: str, prefixes: tuple[str, ...] = ("",)) -> dict[str, NDArray[Any]]:
    """Arrays from a NumPy archive, after a look at what they would take; nothing is unpickled.

    Args:
        path: The path of the file.
        fix: The end of a message, with what to do.
        prefixes: The prefixes of the names to read.

    Raises:
        DataError: When the file cannot be read, or would unpack to too much.
    """
    with opened_zip(path, _WHAT, fix, DataError, DATA_RATIO, DATA_FLOOR) as archive:
        members = [name for name in archive.namelist() if name.startswith(prefixes)]
        check_arrays(archive, members, path, DataError)
    names = [name.removesuffix(".npy") for name in members]
    try:
        # NumPy leaves a file that it opened itself open when the archive is broken.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            return {name: np.asarray(stored[name]) for name in names}
    # What is in the file decides what NumPy raises.
    except Exception as error:
        if "allow_pickle" in str(error):
            raise DataError(
                f"'{path}' holds arrays of Python objects, which would have to be unpickled and "
                "are never: save numbers as np.asarray(x, float), and texts as np.array(x, str)."
            ) from error
        raise DataError(f"'{path}' is no {_WHAT} ({in_one_line(error)}): {fix}.") from error


def _part(stored: dict[str, NDArray[Any]], part: str, path: Path, labels: bool) -> Arrays | None:
    found = {side: _side(stored, f"{side}_{part}", path) for side in "xy"}
    present = [f"{side}_{part}" for side, arrays in found.items() if arrays]
    if not present:
        return None
    if len(present) == 1 and (labels or not found["x"]):
        missing = next(f"{side}_{part}" for side, arrays in found.items() if not arrays)
        raise DataError(f"'{path}' holds '{present[0]}' but no '{missing}': both are needed.")
    _check_lengths({**found["x"], **found["y"]}, path)
    x, y = (
        {key.partition(".")[2]: array for key, array in arrays.items()} for arrays in found.values()
    )
    return x.get("", x), y.get("", y) if y else None


def _side(stored: dict[str, NDArray[Any]], name: str, path: Path) -> dict[str, NDArray[Any]]:
    """The array of this name, or those of one name each behind it."""
    found = {key: array for key, array in stored.items() if key.partition(".")[0] == name}
    if name in found and len(found) > 1:
        other = min(key for key in found if key != name)
        raise DataError(
            f"'{path}' holds '{name}' and '{other}': give one array, or one for each name."
        )
    for key, array in found.items():
        # Which input takes text is known with the model.
        if not (key.startswith("x_") and array.dtype.kind in "US" and array.ndim and array.size):
            check_values(array, f"'{key}' in '{path}'")
    return found


def _check_lengths(arrays: dict[str, NDArray[Any]], path: Path) -> None:
    first, *others = arrays
    for other in others:
        if len(arrays[first]) != len(arrays[other]):
            kind = "labels" if other.startswith("y") else "samples"
            raise DataError(
                f"'{path}' holds {len(arrays[first]):,} samples in '{first}' but "
                f"{len(arrays[other]):,} {kind} in '{other}': give one row for each sample."
            )
