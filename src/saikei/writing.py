"""Files that are written whole or not at all, and never through a link that someone else laid."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from saikei.errors import DiskError, InputError, in_one_line

# What the names of drafts begin with; after a kill they may be left, and can be deleted.
DRAFT = ".draft-"


def check_target(path: str | Path, ending: str, overwrite: bool) -> Path:
    """Refuse a place to write to before any work is done for it.

    Args:
        path: of the file or folder to write.
        ending: that its name must have; may be empty.
        overwrite: whether it may exist.

    Returns:
        The path.

    Raises:
        InputError: when the name is wrong, the file exists, or its folder does not, or cannot be
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
        # A link that leads nowhere exists too.
        if os.path.lexists(path) and not overwrite:
            raise InputError(f"'{path}' exists: give another name, or --overwrite it.")
    except OSError as error:
        raise InputError(f"'{path}' cannot be written: {_reason(error)}.") from error
    if not os.access(path.parent, os.W_OK):
        raise InputError(f"The folder '{path.parent}' cannot be written to: write elsewhere.")
    return path


def write_whole(path: Path, write: Callable[[Path], object]) -> Path:
    """Write a file elsewhere, then move it into its place in one step.

    What was there stays until the new file is whole. A link of that name is replaced, and what it
    leads to stays as it is.

    Args:
        path: of the file to write.
        write: writes the file that it is given, of the same name in another folder.

    Returns:
        The path.

    Raises:
        DiskError: when the disk does not take it.
    """
    with refused_by_disk(path), draft_folder(path.parent) as folder:
        draft = folder / path.name
        write(draft)
        os.replace(draft, path)
    return path


def write_text(path: Path, text: str) -> Path:
    """Write a text file, as `write_whole` does.

    Args:
        path: of the file.
        text: to write, in UTF-8.

    Raises:
        DiskError: when the disk does not take it.
    """
    return write_whole(path, lambda draft: draft.write_text(text, encoding="utf-8"))


@contextmanager
def draft_folder(parent: Path) -> Iterator[Path]:
    """A new empty folder, which is gone at the end with what is still in it.

    Its name cannot be guessed, it is made exclusively, and only this user may write into it: what
    is written there goes through no link that someone else laid.

    Args:
        parent: where to make it: on the disk of what is moved out of it.
    """
    folder = Path(tempfile.mkdtemp(prefix=DRAFT, dir=parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def reserve(path: Path, size: int) -> None:
    """Take the room of a file on the disk now.

    A page of a file in memory for which there is no room later would end the process.

    Args:
        path: of a file.
        size: bytes that it will have.

    Raises:
        OSError: when there is no room.
    """
    with path.open("r+b") as file:
        if not hasattr(os, "posix_fallocate"):
            file.truncate(size)
            return
        try:
            os.posix_fallocate(file.fileno(), 0, max(size, 1))
        except OSError as error:
            # Some file systems cannot.
            if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
                raise
            file.truncate(size)


def remove(path: Path) -> None:
    """Delete a file, a link itself, or a folder with all that is in it; or nothing.

    Args:
        path: of it.
    """
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def refused_by_disk(path: Path) -> Iterator[None]:
    """What the disk refuses in the block is an error that names the file.

    Args:
        path: of what is written.

    Raises:
        DiskError: with the reason of the operating system.
    """
    try:
        yield
    except OSError as error:
        raise DiskError(
            f"'{path}' cannot be written ({_reason(error)}): make room, or write elsewhere."
        ) from error


def _reason(error: OSError) -> str:
    return error.strerror or in_one_line(error)
