"""The command line: `saikei COMMAND`, one file a command.

Nothing is imported before `main` is at work, which a Ctrl-C would end with a traceback.
"""

from __future__ import annotations

import sys


def main(arguments: list[str] | None = None) -> int:
    """Run the command line: whatever comes out of a command ends as an exit code and one sentence.

    Args:
        arguments: without the program's name; those of the process, which is at its end then,
            when not given.

    Returns:
        The exit code: 0 success, 1 the work failed, 2 the arguments or input were wrong, 130
        stopped by Ctrl-C, 143 by SIGTERM.
    """
    try:
        from saikei.cli.process import run

        return run(arguments)
    except KeyboardInterrupt:
        # Before signals were caught, or after.
        sys.stderr.write("saikei: Stopped by Ctrl-C.\n")
        return 130
    finally:
        # Python ends by the signal itself when an interrupt has once come out of an `exec`, as
        # there are in the imports, although it was caught; the next `exec` makes it forget.
        exec("")
