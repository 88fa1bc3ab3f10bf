"""Run one command, from the standard streams and signals to the exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from saikei.cli.endings import ending_of, write_ending
from saikei.cli.signals import caught_signals


def run(arguments: Sequence[str] | None) -> int:
    """Run a command; every error becomes an exit code and one sentence on stderr.

    Args:
        arguments: Arguments without the program's name. `None` takes those of the process.
    """
    given = sys.argv[1:] if arguments is None else list(arguments)
    with caught_signals(for_good=arguments is None) as signals:
        try:
            if arguments is None:
                open_streams()
            return _run(given)
        # Everything is caught here, and nowhere else.
        except (Exception, KeyboardInterrupt, SystemExit) as error:  # noqa: BLE001
            signals.ended = True
            return write_ending(ending_of(error, given, signals.caught), error, given)


def _run(arguments: list[str]) -> int:
    # TensorFlow reads it when it is imported.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from saikei.cli.app import run_command

    code = run_command(arguments)
    # Flush here, where a failure can still be reported.
    sys.stdout.flush()
    return code


def open_streams() -> None:
    """Make sure that stdout and stderr can be written to.

    The descriptor of a closed stream would be reused by the next file that is opened, and a
    stream with another encoding than UTF-8 would fail on characters that it cannot encode.
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
