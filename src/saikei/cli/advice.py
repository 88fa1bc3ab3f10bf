"""Advice in errors that names Python arguments, as options of the command that was run."""

from __future__ import annotations

import re
from collections.abc import Collection

# An argument outside of a call: no step or method such as `Soup(check=False)`, no `--set` pair.
_ARGUMENT = re.compile(r"(?<=\s)(?<![\w'\])], )(?<!--set )([a-z_]+)=('[^']*'|-?[\w.]+\b(?!\())?")


def as_options(message: str, options: Collection[str]) -> str:
    """Replace Python arguments in a message by options: `check=False` by `--no-check`.

    Args:
        message: The message of an error.
        options: The options of the command, such as `"--no-check"`. Other arguments stay.
    """

    def option(found: re.Match[str]) -> str:
        name, value = found[1].replace("_", "-"), found[2] or ""
        typed = f"--no-{name}" if value == "False" else f"--{name}"
        if typed not in options:
            return found[0]
        value = "" if value in ("True", "False") else value.strip("'")
        return f"{typed} {value}".rstrip()

    return _ARGUMENT.sub(option, message)
