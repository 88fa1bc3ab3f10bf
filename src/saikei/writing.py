"""Files that are written completely or not at all, and never through a link made by others."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from saikei.errors import DiskError, InputError, in_one_line

# Beginning of the names of drafts. They may remain after a kill, and can be deleted.
DRAFT = ".draft-"


def check_target(path: str | Path, ending: str, overwrite: bool) -> Path:
    """Refuse a path that cannot be written to, before any work is done.

    Raises:
        InputError: When the name is wrong, the file exists, or its folder does not, or cannot be
            written to.
    """
    path = Path(path)
    try:
        if ending and path.is_dir():
            raise InputError(f"'{path}' is a folder: give the name of a file, ending in {ending}.")
        if ending and path.suffix != ending:
            named = path.with_suffix(ending)
            raise InputError(f"'{path}' must end in {ending}: name it '{named}'.")
        if not path.parent.is_dir():
            raise InputError(
                f"There is no folder '{path.parent}' to write '{path.name}' to: make it."
            )
        # A link to a missing file exists too.
        if os.path.lexists(path) and not overwrite:
            raise InputError(f"'{path}' exists: give another name, or --overwrite it.")
    except OSError as error:
        raise InputError(f"'{path}' cannot be written: {_reason(error)}.") from error
    if not os.access(path.parent, os.W_OK):
        raise InputError(f"The folder '{path.parent}' cannot be written to: write elsewhere.")
    return path


def write_whole(path: Path, write: Callable[[Path], object]) -> Path:
    """Write a file or folder in another folder, then move it to its path in one step.

    An existing file stays until the new one is complete. A link of that name is replaced, and the
    file that it points to stays as it is.

    Args:
        path: Path of the file or folder to write.
        write: Function that writes to the path that it is given: same name, another folder. It may
            make a folder of it, which replaces an existing one.

    Raises:
        DiskError: When the file cannot be written.
    """
    with refused_by_disk(path), draft_folder(path.parent) as folder:
        draft = folder / path.name
        write(draft)
        if draft.is_dir():
            remove(path)
        os.replace(draft, path)
    return path


def write_text(path: Path, text: str) -> Path:
    """Write a text file, as `write_whole` does.

    Args:
        path: Path of the file.
        text: Text to write, in UTF-8.

    Raises:
        DiskError: When the file cannot be written.
    """
    return write_whole(path, lambda draft: draft.write_text(text, encoding="utf-8"))


@contextmanager
def draft_folder(parent: Path) -> Iterator[Path]:
    """A new empty folder, which is deleted at the end with everything in it.

    Its name cannot be guessed, and only this user may write into it: no link of others can be
    there.

    Args:
        parent: Folder to make it in, on the disk that its files are moved to.
    """
    folder = Path(tempfile.mkdtemp(prefix=DRAFT, dir=parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def reserve(path: Path, size: int) -> None:
    """Reserve the disk space of a file.

    If a file is mapped into memory and the disk is full later, the process would be killed.

    Args:
        path: Path of an existing file.
        size: Number of bytes that it will have.

    Raises:
        OSError: When there is not enough space.
    """
    with path.open("r+b") as file:
        if not hasattr(os, "posix_fallocate"):
            file.truncate(size)
            return
        try:
            os.posix_fallocate(file.fileno(), 0, max(size, 1))
        except OSError as error:
            # Some file systems cannot reserve space.
            if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
                raise
            file.truncate(size)


def remove(path: Path) -> None:
    """Delete a file, a link (not its target), or a folder with everything in it, if it exists."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def refused_by_disk(path: Path) -> Iterator[None]:
    """Turn errors of the operating system in the block into a `DiskError` with the file's name.

    Raises:
        DiskError: With the reason of the operating system.
    """
    try:
        yield
    except OSError as error:
        raise DiskError(
            f"'{path}' cannot be written ({_reason(error)}): make room, or write elsewhere."
        ) from error


def _reason(error: OSError) -> str:
    return error.strerror or in_one_line(error)
