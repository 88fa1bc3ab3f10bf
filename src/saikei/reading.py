"""JSON from files of unknown origin."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from saikei.errors import InputError, in_one_line

# Largest size of a JSON file in bytes: parsed, it takes about ten times as much memory. Runs and
# recipes have a hundredth of this.
LARGEST = 32 * 1024**2


def read_json(path: Path, what: str) -> Any:
    """The value in a JSON file.

    Args:
        path: Path of the file.
        what: Kind of file, to begin messages with: "The recipe".

    Raises:
        InputError: When the file cannot be read, is too large, or is not JSON.
    """
    try:
        # Read by its size and one byte more: a pipe or a device has none.
        with path.open("rb") as file:
            content = file.read(LARGEST + 1)
    except (OSError, ValueError) as error:
        raise InputError(f"{what} '{path}' cannot be read: {in_one_line(error)}.") from error
    if len(content) > LARGEST:
        raise InputError(
            f"{what} '{path}' is larger than {LARGEST // 1024**2} MiB, the most that such a file "
            "may have: give another."
        )
    return parse_json(content, f"{what} '{path}'")


def holds_json(path: Path, value: Any) -> bool:
    """Whether a JSON file holds a value, and is not damaged."""
    try:
        # As text, in which NaN is NaN.
        return json.dumps(read_json(path, "A file")) == json.dumps(value)
    except InputError:
        return False


def parse_json(text: str | bytes, what: str, kind: type[InputError] = InputError) -> Any:
    """The value in JSON text.

    Args:
        text: The text, or its bytes.
        what: Name of the text, to begin messages with.
        kind: Class of the error to raise.

    Raises:
        InputError: When the text is not JSON, or nested too deep.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise kind(f"{what} is nested too deep to be read.") from error
    # Bytes that are no UTF-8, and numbers of thousands of digits, are ValueErrors too.
    except (ValueError, MemoryError) as error:
        raise kind(f"{what} is not JSON: {in_one_line(error)}.") from error
