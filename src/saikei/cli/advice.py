"""Advice in errors: Python arguments as options, and options in place of unknown ones."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Mapping

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


# How much of an option has to be typed right to be the one that was meant.
_SIMILAR = 0.85
_SHORTEST_WORD = 3


def options_for(unknown: str, described: Mapping[str, str]) -> list[str]:
    """The options that may be meant by one that a command does not have.

    Those that are typed alike, or else those whose descriptions have its words: `--train` is
    answered by `--data`, which names `x_train`, and `--epochs` by `--effort`.

    Args:
        unknown: What was typed, such as `"--train"`.
        described: The description of each option of the command.
    """
    begun = [one for one in described if one.startswith(unknown) or unknown.startswith(one)]
    alike = begun or difflib.get_close_matches(unknown, described, cutoff=_SIMILAR)
    words = [word for word in _words(unknown) if len(word) >= _SHORTEST_WORD]

    def tells_of(text: str) -> bool:
        # `val` begins `validation`, and `epoch` begins `epochs`, whichever was typed.
        found = [one for one in _words(text) if len(one) >= _SHORTEST_WORD]
        return all(
            any(one.startswith(word) or word.startswith(one) for one in found) for word in words
        )

    return alike or [name for name, text in described.items() if words and tells_of(text)]


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z]+", text.lower())
