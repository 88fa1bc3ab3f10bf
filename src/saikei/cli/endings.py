"""How a command ends that did not succeed: an exit code, and one sentence on stderr."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from typing import NamedTuple

from saikei.errors import InputError, SaikeiError, in_one_line, printable

# Commands that begin where they were stopped.
_TAKEN_UP = ("optimize", "demo")
_NAMES = {signal.SIGINT: "Ctrl-C"}


class Ending(NamedTuple):
    """The exit code, and a sentence; none where all has been printed."""

    code: int
    sentence: str


def ending_of(error: BaseException, arguments: Sequence[str], caught: Sequence[int]) -> Ending:
    """What an exception means for whoever typed the command.

    Args:
        error: that came out of the command.
        arguments: that were typed.
        caught: signals that came before.
    """
    # Libraries turn an interrupt into errors of their own.
    if caught or isinstance(error, KeyboardInterrupt):
        return _stopped(arguments, signal.Signals(caught[0] if caught else signal.SIGINT))
    # So does Rich of a pipe that is closed.
    if isinstance(error, SystemExit) and isinstance(error.__context__, OSError):
        error = error.__context__
    if isinstance(error, SaikeiError):
        return Ending(2 if isinstance(error, InputError) else 1, str(error))
    if isinstance(error, OSError):
        return _refused_by_system(error)
    if isinstance(error, RecursionError):
        return Ending(2, "What was given is nested too deep to be read: simplify it.")
    if isinstance(error, MemoryError) or type(error).__name__ in _OUT_OF_MEMORY:
        return Ending(1, "There is not enough memory: use smaller batches, or less data.")
    if isinstance(error, ImportError):
        return Ending(1, f"A package that is needed cannot be imported: {in_one_line(error)}.")
    if isinstance(error, SystemExit):
        return Ending(error.code if isinstance(error.code, int) else 1, f"Stopped: {error.code}.")
    return _of_typer(error) or Ending(
        1,
        f"'saikei {_command(arguments)}' failed in a way that it should not: "
        f"{type(error).__name__}: {in_one_line(error)}. This is a bug of Saikei: please report it "
        "with the command and what 'saikei --debug …' prints.",
    )


# As TensorFlow and torch call it.
_OUT_OF_MEMORY = ("ResourceExhaustedError", "OutOfMemoryError")


def write_ending(ending: Ending, error: BaseException, arguments: Sequence[str]) -> int:
    """Print the sentence, and with `--debug` or SAIKEI_DEBUG=1 where it comes from.

    Args:
        ending: of the command.
        error: that it is of.
        arguments: that were typed.

    Returns:
        The exit code.
    """
    drop_unprinted()
    # With stderr closed there is nowhere to write the message.
    with contextlib.suppress(OSError, ValueError):
        if "--debug" in arguments or os.environ.get("SAIKEI_DEBUG", "0") not in ("", "0"):
            traceback.print_exception(error)
        if ending.sentence:
            sys.stderr.write(f"saikei: {printable(' '.join(ending.sentence.split()))}\n")
            sys.stderr.flush()
    return ending.code


def _command(arguments: Sequence[str]) -> str:
    return next((argument for argument in arguments if not argument.startswith("-")), "")


def _stopped(arguments: Sequence[str], number: signal.Signals) -> Ending:
    further = (
        "The same command goes on from here."
        if _command(arguments) in _TAKEN_UP
        else "No file was left half-written."
    )
    return Ending(128 + number, f"Stopped by {_NAMES.get(number, number.name)}. {further}")


def _refused_by_system(error: OSError) -> Ending:
    if error.errno == errno.EPIPE:
        return Ending(1, "What reads the output has closed it before all was printed.")
    place = f"'{error.filename}': " if error.filename else ""
    return Ending(
        1, f"The system refused to read or write: {place}{error.strerror or in_one_line(error)}."
    )


def _of_typer(error: BaseException) -> Ending | None:
    from typer.exceptions import TyperException

    if isinstance(error, TyperException):
        return Ending(error.exit_code, error.format_message())
    return None


def drop_unprinted() -> None:
    """Drop what stdout does not take: at the end of the process it would fail once more."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
