"""Kill a function at every step that it takes in a folder, and let it go on afterwards.

A step is anything that changes files: opening one to write, renaming, deleting, making a folder.
"""

from __future__ import annotations

import hashlib
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

_CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink")
_FLAGS = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def contents(folder: Path, without: Iterable[str] = ()) -> dict[str, str]:
    """The hash of every file in a folder.

    Args:
        folder: The folder.
        without: Names of files that are left out.
    """
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in {*without}
    }


def killed(function: Callable[[Path], Any], folder: Path, step: int) -> bool:
    """Run a function in a fork of this process, and kill it right before a step.

    Args:
        function: Called with the folder.
        folder: The folder, in which steps are counted.
        step: Number of steps that it may take; -1 for all.

    Returns:
        Whether it was killed; otherwise it has finished.
    """
    with warnings.catch_warnings():
        # The fork runs NumPy and Python alone.
        warnings.simplefilter("ignore")
        process = os.fork()
    if process == 0:
        code = 1
        try:
            kill_before(step, folder)
            function(folder)
            code = 0
        except BaseException:  # noqa: BLE001
            traceback.print_exc()
        finally:
            os._exit(code)
    status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    assert status in (0, -signal.SIGKILL), f"the function failed at step {step}, see above"
    return status != 0


def kill_before(step: int, folder: Path) -> None:
    """Kill this process right before it takes a step in a folder, counted from 0.

    For a process of its own: what is installed here cannot be taken away again.
    """
    taken = 0

    def look(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal taken
        if not _changes(event, arguments, str(folder)):
            return
        if taken == step:
            os.kill(os.getpid(), signal.SIGKILL)
        taken += 1

    sys.addaudithook(look)


def _changes(event: str, arguments: tuple[Any, ...], folder: str) -> bool:
    if event == "open":
        path, _, flags = arguments
        return isinstance(flags, int) and bool(flags & _FLAGS) and _within(path, folder)
    return event in _CHANGES and _within(arguments[0], folder)


def _within(path: Any, folder: str) -> bool:
    return isinstance(path, (str, os.PathLike)) and os.fspath(path).startswith(folder)
