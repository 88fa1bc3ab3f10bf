"""Exit codes and error messages: one sentence on stderr for each failed command."""

from __future__ import annotations

import contextlib
import errno
import os
import shlex
import signal
import sys
import traceback
from collections.abc import Sequence
from typing import Any, NamedTuple

from saikei.cli.advice import options_for
from saikei.errors import DiskError, InputError, SaikeiError, in_one_line, printable

# Commands that continue when they are repeated.
_CONTINUED = ("optimize", "demo")
# How many options are offered in place of an unknown one.
_OFFERED = 3
_NAMES = {signal.SIGINT: "Ctrl-C"}


class Ending(NamedTuple):
    """The exit code, and a sentence; empty if everything has been printed already."""

    code: int
    sentence: str


def ending_of(error: BaseException, arguments: Sequence[str], caught: Sequence[int]) -> Ending:
    """The exit code and the message for an exception."""
    # Libraries may turn an interrupt into an error of their own.
    if caught or isinstance(error, KeyboardInterrupt):
        return _stopped(error, arguments, signal.Signals(caught[0] if caught else signal.SIGINT))
    # Rich does so with a closed pipe.
    if isinstance(error, SystemExit) and isinstance(error.__context__, OSError):
        error = error.__context__
    if isinstance(error, SaikeiError):
        further = f" {_further(arguments)}" if isinstance(error, DiskError) else ""
        return Ending(2 if isinstance(error, InputError) else 1, f"{error}{further}".rstrip())
    if isinstance(error, OSError):
        return _refused_by_system(error)
    if isinstance(error, RecursionError):
        return Ending(2, "The input is nested too deeply to be read: simplify it.")
    if isinstance(error, MemoryError) or type(error).__name__ in _OUT_OF_MEMORY:
        return Ending(1, "There is not enough memory: use smaller batches, or less data.")
    if isinstance(error, ImportError):
        return Ending(1, f"A package that is needed cannot be imported: {in_one_line(error)}.")
    if isinstance(error, SystemExit):
        return Ending(error.code if isinstance(error.code, int) else 1, f"Stopped: {error.code}.")
    return _of_typer(error) or Ending(
        1,
        f"'saikei {_command(arguments)}' failed unexpectedly: {type(error).__name__}: "
        f"{in_one_line(error)}. This is a bug of Saikei: please report it with the command and "
        "the output of 'saikei --debug …'.",
    )


# Names in TensorFlow and torch.
_OUT_OF_MEMORY = ("ResourceExhaustedError", "OutOfMemoryError")


def write_ending(ending: Ending, error: BaseException, arguments: Sequence[str]) -> int:
    """Print the sentence, and the traceback with `--debug` or SAIKEI_DEBUG=1."""
    drop_unprinted()
    # If stderr is closed, the message cannot be written anywhere.
    with contextlib.suppress(OSError, ValueError):
        if "--debug" in arguments or os.environ.get("SAIKEI_DEBUG", "0") not in ("", "0"):
            traceback.print_exception(error)
        if ending.sentence:
            sys.stderr.write(f"saikei: {printable(' '.join(ending.sentence.split()))}\n")
            sys.stderr.flush()
    return ending.code


def _command(arguments: Sequence[str]) -> str:
    return next((argument for argument in arguments if not argument.startswith("-")), "")


def _stopped(error: BaseException, arguments: Sequence[str], number: signal.Signals) -> Ending:
    """How a stopped command ends: with what the search has noted, and how to go on."""
    notes = getattr(error, "__notes__", ())
    sentences = (
        f"Stopped by {_NAMES.get(number, number.name)}.",
        *notes,
        _further(arguments) or "No file was left half-written.",
    )
    return Ending(128 + number, " ".join(sentences))


def _further(arguments: Sequence[str]) -> str:
    """How to go on with a command that continues what it did before; empty for others."""
    if _command(arguments) not in _CONTINUED:
        return ""
    return f"The same command continues the run: saikei {shlex.join(arguments)}"


def _refused_by_system(error: OSError) -> Ending:
    if error.errno == errno.EPIPE:
        return Ending(1, "The reader of the output closed it before everything was printed.")
    file = f"'{error.filename}': " if error.filename else ""
    return Ending(
        1, f"The system refused to read or write: {file}{error.strerror or in_one_line(error)}."
    )


def _of_typer(error: BaseException) -> Ending | None:
    from typer.exceptions import TyperException

    if isinstance(error, TyperException):
        context = getattr(error, "ctx", None)
        command = context.command_path if context is not None else "saikei"
        unknown = getattr(error, "option_name", None)
        if unknown is not None and context is not None:
            message = _no_option(unknown, context.command.params)
        else:
            message = error.format_message().rstrip(".")
        return Ending(error.exit_code, f"{message}. See '{command} --help'.")
    return None


def _no_option(unknown: str, parameters: Sequence[Any]) -> str:
    known = {one.opts[0]: getattr(one, "help", None) or "" for one in parameters}
    options = {name: text for name, text in known.items() if name.startswith("--")}
    found = options_for(unknown, options)[:_OFFERED]
    return f"No such option: {unknown}" + (f"; perhaps {' or '.join(found)}" if found else "")


def drop_unprinted() -> None:
    """Drop output that stdout does not accept: flushing it at exit would fail again."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
