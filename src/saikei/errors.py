"""The errors that Saikei raises, as one small family.

`InputError` means that an argument, a model, a file or data is wrong; its message ends with a fix
(the command line exits with 2). `WorkError` means that the work itself failed (exit 1).
"""

import re
from collections.abc import Iterable
from typing import Any

_COLOURS = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class SaikeiError(Exception):
    """Base of every error that Saikei raises on purpose; its message is one line."""

    def __init__(self, *arguments: Any) -> None:
        # A value of the user's in the message may be printed on several lines.
        super().__init__(
            *(" ".join(one.split("\n")) if isinstance(one, str) else one for one in arguments)
        )


class InputError(SaikeiError, ValueError):
    """An argument, a model, a file or the data is not usable as it is."""


class ModelError(InputError):
    """The model cannot be read, built or profiled."""


class DataError(InputError):
    """The data does not fit the model, or holds values that cannot be trained on."""


class BudgetError(InputError):
    """The budget is malformed, or no model that fits it can be reached."""


class EditError(InputError):
    """An edit cannot be applied to this model."""


class FusionError(InputError):
    """The members cannot be fused as asked."""


class WorkError(SaikeiError, RuntimeError):
    """The input was fine but the work could not be finished."""


class DiskError(WorkError):
    """A file or folder could not be written."""


class PinnedWarning(UserWarning):
    """Some channels could not be cut; the message names them and the reason."""


class ModelWarning(UserWarning):
    """A part of a model file could not be used; the message names it and the reason."""


class TrainingWarning(UserWarning):
    """A training did not do what was asked; the message gives what it did instead."""


def in_one_line(error: BaseException, limit: int = 300) -> str:
    """The message of a library's error on one line, as part of a sentence.

    For an error in a layer's call, Keras prints the reason in bold, between the layer and all its
    arguments: only the reason is kept, without codes for the colours of a terminal.

    Args:
        error: The error to write.
        limit: Largest number of characters.
    """
    message = str(error).split("\n\nArguments received")[0].rsplit("Exception encountered: ")[-1]
    bold = message.split("\x1b[1m")[-1]
    words = _COLOURS.sub("", bold).split() or _COLOURS.sub("", message).split()
    return printable(" ".join(words)[:limit].rstrip(". ")) or type(error).__name__


def printable(text: str) -> str:
    """Text without characters that control a terminal; line breaks and tabs stay.

    Names in files of unknown origin may contain such characters.

    Args:
        text: Text to be printed.
    """
    return _CONTROLS.sub("\N{REPLACEMENT CHARACTER}", text)


def listed(parts: Iterable[str], most: int = 12, between: str = "; ") -> str:
    """The first parts of a message, and how many more there are.

    Args:
        parts: The parts, such as names or clauses.
        most: The largest number that is shown.
        between: What separates them.
    """
    parts = list(parts)
    more = f"{between.rstrip()} and {len(parts) - most} more" if len(parts) > most else ""
    return between.join(parts[:most]) + more


def quoted(names: Iterable[Any], most: int = 5) -> str:
    """The first names in quotes, and how many more there are.

    Args:
        names: The names to quote.
        most: The largest number that is shown.
    """
    return listed((f"'{name}'" for name in names), most, ", ")
