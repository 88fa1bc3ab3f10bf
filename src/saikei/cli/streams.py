"""The standard streams of a process, whatever state they are in."""

from __future__ import annotations

import contextlib
import os
import sys


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


def drop_unprinted() -> None:
    """Drop what stdout does not take: at the end of the process it would fail once more."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
