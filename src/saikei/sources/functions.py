"""Data that a function of the user returns, named as `module:function`."""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from saikei.data import Splits, gathered
from saikei.errors import DataError, in_one_line
from saikei.npz import Archive

_RETURNS = (
    "return a dict with some of 'train', 'validation', 'test' and 'classes', or one dataset or "
    "(x, y)"
)
_KEYS = ("train", "validation", "test", "classes")


def call_function(source: str, labels: bool) -> Archive:
    """Import a module, call a function of it without arguments, and take what it returns.

    This runs the user's code, which is why it is done only for a name that the user typed. The
    current folder is searched for the module first.

    Args:
        source: `module:function`, such as `"my_data:load"` or
            `"keras.datasets.mnist:load_data"`.
        labels: Whether each part must have labels.

    Raises:
        DataError: If the module or function does not exist, fails, or returns something else.
    """
    returned = _returned(source)
    if isinstance(returned, Splits):
        returned = {name: getattr(returned, name) for name in _KEYS[:3]}
    if isinstance(returned, tuple) and 2 <= len(returned) <= 3 and all(map(_is_pair, returned)):
        # As the functions of `keras.datasets` do.
        names = ("train", "test") if len(returned) == 2 else _KEYS[:3]
        returned = dict(zip(names, returned, strict=True))
    if not _names_parts(returned):
        _check(returned, source, "data", labels)
        return Archive(Path(source), train=returned, only=True)
    unknown = sorted(str(key) for key in returned if key not in _KEYS)
    if unknown:
        raise DataError(f"{source} returns {', '.join(map(repr, unknown))} too: {_RETURNS}.")
    parts = {key: value for key, value in returned.items() if key in _KEYS[:3]}
    parts = {key: value for key, value in parts.items() if value is not None}
    for key, value in parts.items():
        _check(value, source, key, labels)
    classes = tuple(str(name) for name in returned.get("classes") or ())
    return Archive(Path(source), classes=classes, **parts)


def _returned(source: str) -> Any:
    module_name, _, function_name = source.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and module_name.startswith(error.name):
            raise DataError(
                f"There is no module '{error.name}' for --data {source}: run the command in the "
                "folder that holds it, or install its package."
            ) from error
        raise DataError(f"'{module_name}' cannot be imported: {in_one_line(error)}.") from error
    # Importing runs the user's code, which may raise anything.
    except Exception as error:
        raise DataError(
            f"'{module_name}' cannot be imported ({type(error).__name__}: {in_one_line(error)})."
        ) from error
    for name in function_name.split("."):
        if not hasattr(found, name):
            near = difflib.get_close_matches(name, dir(found), 1)
            fix = f"use '{near[0]}'" if near else "name a function of it"
            raise DataError(f"'{module_name}' has no '{function_name}': {fix}.")
        found = getattr(found, name)
    if not callable(found):
        raise DataError(f"{source} is no function: name one that takes no arguments.")
    try:
        return found()
    # So may the function.
    except Exception as error:
        raise DataError(
            f"{source} failed ({type(error).__name__}: {in_one_line(error)}): call it in Python to "
            "see where."
        ) from error


def _is_pair(value: Any) -> bool:
    return isinstance(value, tuple) and len(value) == 2


def _names_parts(returned: Any) -> bool:
    """Whether it is a dict of parts; a dict may also hold the inputs of one dataset by name."""
    return isinstance(returned, Mapping) and ("train" in returned or "test" in returned)


def _check(data: Any, source: str, part: str, labels: bool) -> None:
    if data is None or isinstance(data, (str, bytes, int, float)):
        raise DataError(f"{source} returned {type(data).__name__} as {part}: {_RETURNS}.")
    if hasattr(data, "__next__"):
        raise DataError(
            f"{source} returned an iterator as {part}, which can be read once only: return "
            "arrays or a dataset."
        )
    if isinstance(data, tuple):
        gathered(data, part, labels=labels)
