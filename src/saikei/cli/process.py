"""One run of the command line, from its streams and signals to its exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from saikei.cli.endings import ending_of, write_ending
from saikei.cli.signals import caught_signals


def run(arguments: Sequence[str] | None) -> int:
    """Run a command, and turn whatever comes out of it into an exit code and one sentence.

    Args:
        arguments: without the program's name; those of the process when not given.

    Returns:
        The exit code.
    """
    given = sys.argv[1:] if arguments is None else list(arguments)
    with caught_signals(for_good=arguments is None) as signals:
        try:
            if arguments is None:
                open_streams()
            return _run(given)
        # The one place where everything ends.
        except (Exception, KeyboardInterrupt, SystemExit) as error:  # noqa: BLE001
            signals.ended = True
            return write_ending(ending_of(error, given, signals.caught), error, given)


def _run(arguments: list[str]) -> int:
    # TensorFlow reads it when it is imported, which is later.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from saikei.cli.app import run_command

    code = run_command(arguments)
    # What is still to be printed may fail too, and not after the last chance to tell.
    sys.stdout.flush()
    return code


def open_streams() -> None:
    """See to it that stdout and stderr can be written to.

    A stream that is closed would be the next file that is opened, and one of another encoding
    than UTF-8 would refuse what it has no letters for.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115, PTH123
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
