"""JSON from files that anybody may have written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from saikei.errors import InputError, in_one_line

# Of a file of JSON: parsed it takes some ten times as much memory. Runs and recipes take a
# hundredth of it.
LARGEST = 32 * 1024**2


def read_json(path: Path, what: str, kind: type[InputError] = InputError) -> Any:
    """What a file of JSON holds.

    Args:
        path: of the file.
        what: it is, to begin a message with: "The recipe".
        kind: the error to raise.

    Raises:
        InputError: when it cannot be read, is too large, or is no JSON.
    """
    try:
        # Read by its size and one byte more: a pipe or a device has none.
        with path.open("rb") as file:
            content = file.read(LARGEST + 1)
    except (OSError, ValueError) as error:
        raise kind(f"{what} '{path}' cannot be read: {in_one_line(error)}.") from error
    if len(content) > LARGEST:
        raise kind(
            f"{what} '{path}' has more than {LARGEST // 1024**2} MiB, as none has: give another."
        )
    return parse_json(content, f"{what} '{path}'", kind)


def holds_json(path: Path, value: Any) -> bool:
    """Whether a file holds this as JSON, and is not damaged.

    Args:
        path: of the file.
        value: as `json` reads it.
    """
    try:
        # As text, in which NaN is NaN.
        return json.dumps(read_json(path, "A file")) == json.dumps(value)
    except InputError:
        return False


def parse_json(text: str | bytes, what: str, kind: type[InputError] = InputError) -> Any:
    """What JSON text holds.

    Args:
        text: the text, or its bytes.
        what: it is, to begin a message with.
        kind: the error to raise.

    Raises:
        InputError: when it is no JSON, or nested too deep.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise kind(f"{what} is nested too deep to be read.") from error
    # Bytes that are no UTF-8, and numbers of thousands of digits, are ValueErrors too.
    except (ValueError, MemoryError) as error:
        raise kind(f"{what} is not JSON: {in_one_line(error)}.") from error
