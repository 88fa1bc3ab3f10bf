"""One process at a time works in a folder."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from saikei.errors import InputError
from saikei.writing import refused_by_disk

LOCK = ".lock"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep every other process out of a folder, which is made if it is missing.

    The system gives the lock back when the process ends, however it ends. A folder in which
    nothing was written is gone at the end.

    Args:
        folder: to work in.

    Raises:
        InputError: when another process works in it, or something in it is a link.
        DiskError: when it cannot be written to.
    """
    with refused_by_disk(folder):
        folder.mkdir(parents=True, exist_ok=True)
        _check_links(folder)
        lock = FileLock(folder / LOCK)
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            raise InputError(
                f"Another process is at work in '{folder}': wait for its end, or give out= "
                "another folder."
            ) from error
    try:
        yield
    finally:
        # While it is still ours: whoever has opened it meanwhile finds that it is gone, and no
        # longer counts.
        with contextlib.suppress(OSError):
            (folder / LOCK).unlink()
        lock.release()
        # Nothing was written in a folder that is empty, and only such a one can be removed so.
        with contextlib.suppress(OSError):
            folder.rmdir()


def _check_links(folder: Path) -> None:
    """Nothing is written through a link: a run makes none, and another may lead anywhere."""
    for pattern in ("*", "candidates/*", "candidates/*/*"):
        for entry in folder.glob(pattern):
            if entry.is_symlink():
                raise InputError(
                    f"'{entry}' is a symbolic link, as no run makes: delete it, or give out= "
                    "another folder."
                )
