"""The command line: `saikei COMMAND`, one file for each command.

Everything is imported inside `main`, where Ctrl-C during the imports can be caught.
"""

from __future__ import annotations

import sys


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; every error becomes an exit code and one sentence on stderr.

    Args:
        arguments: Arguments without the program's name. `None` takes those of the process, which
            is then expected to end after the call.

    Returns:
        The exit code: 0 success, 1 the work failed, 2 the arguments or the input were wrong, 130
        stopped by Ctrl-C, 143 stopped by SIGTERM.
    """
    try:
        from saikei.cli.process import run

        return run(arguments)
    except KeyboardInterrupt:
        # Before signals are handled, or after.
        sys.stderr.write("saikei: Stopped by Ctrl-C.\n")
        return 130
    finally:
        # If a KeyboardInterrupt was raised inside an `exec` (the imports contain some), Python
        # ends with the signal although it was caught. Another `exec` resets that.
        exec("")
