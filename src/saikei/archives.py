"""Sizes and checksums in files of unknown origin, checked before anything is read into memory.

A zip archive of 1 MB may unpack to 1 GB, and a data set in HDF5 may have any shape without a byte
on the disk. What a file unpacks to is bounded here by its size and by the free memory, and
checksums are compared where there are any.
"""

from __future__ import annotations

import contextlib
import io
import math
import os
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import h5py
from numpy.lib import format as npy

from saikei.errors import InputError, in_one_line

MIB = 1024**2
# How many times its size a file may unpack to, from `FLOOR` bytes on. Trained weights do not
# compress, those of a sparse network tenfold; Keras does not compress at all.
RATIO = 32
FLOOR = 64 * MIB
# Of data: images of few colours, masks and one-hot labels compress much better than weights.
DATA_RATIO = 200
DATA_FLOOR = 256 * MIB

# What zipfile and zlib raise for bytes that are no archive, or a damaged one.
_BROKEN = (
    zipfile.BadZipFile,
    zlib.error,
    OSError,
    EOFError,
    ValueError,
    NotImplementedError,
    RuntimeError,
    OverflowError,
)
_CHUNK = 1 << 20


@contextmanager
def opened_zip(
    path: Path,
    what: str,
    fix: str,
    kind: type[InputError],
    ratio: int = RATIO,
    floor: int = FLOOR,
) -> Iterator[zipfile.ZipFile]:
    """A zip archive whose members are whole, and no larger than such files are.

    Args:
        path: Path of the file.
        what: Kind of file that it should be, for messages: ".keras file".
        fix: End of the messages: "save it with model.save".
        kind: Class of the error to raise.
        ratio: How many times its size it may unpack to.
        floor: Number of bytes that a file of any size may unpack to.

    Raises:
        InputError: Of that kind, when it is no archive, is damaged, or unpacks to too much.
    """
    try:
        archive = zipfile.ZipFile(path)
    except _BROKEN as error:
        raise kind(f"'{path}' is no {what} ({in_one_line(error)}): {fix}.") from error
    with archive:
        infos = archive.infolist()
        _check_names(infos, path, kind)
        unpacked = sum(info.file_size for info in infos)
        check_growth(unpacked, path.stat().st_size, f"'{path}'", kind, ratio, floor)
        _check_members(archive, f"'{path}' is no whole {what}", fix, kind)
        yield archive


def check_growth(
    unpacked: int, stored: int, what: str, kind: type[InputError], ratio: int, floor: int
) -> None:
    """Refuse what would take far more memory than it takes on the disk.

    Args:
        unpacked: Number of bytes in memory.
        stored: Number of bytes on the disk.
        what: Name of the file, for the message.
        kind: Class of the error to raise.
        ratio: How many times the stored bytes may be unpacked.
        floor: Number of bytes that a file of any size may unpack to.
    """
    if unpacked > max(floor, ratio * stored):
        raise kind(
            f"{what} would unpack to {in_units(unpacked)} from {in_units(stored)}, more than "
            f"{ratio} times as much: it is not read. If you trust it, store it uncompressed."
        )


def check_memory(needed: int, what: str, kind: type[InputError]) -> None:
    """Refuse what does not fit into the memory that is free.

    Args:
        needed: Number of bytes.
        what: What needs them, for the message.
        kind: Class of the error to raise.
    """
    free = _free_memory()
    if free is not None and needed > free:
        raise kind(
            f"{what} needs {in_units(needed)} of memory, and {in_units(free)} are free: use a "
            "machine with more."
        )


@contextmanager
def opened_hdf5(
    raw: IO[bytes], what: str, stored: int, kind: type[InputError]
) -> Iterator[tuple[h5py.File, int]]:
    """An HDF5 file that keeps all its data itself, and whose data does not grow when it is read.

    Args:
        raw: The bytes of the file; closed at the end.
        what: Name of the file, to begin messages with.
        stored: Number of bytes of the file.
        kind: Class of the error to raise.

    Returns:
        The file, and the bytes of all its data sets in memory.

    Raises:
        InputError: Of that kind, when it cannot be read.
    """
    with raw:
        try:
            file = h5py.File(raw, "r")
        # For damaged bytes the library raises errors of many classes.
        except Exception as error:
            raise kind(
                f"{what} is no HDF5 file, or a damaged one ({in_one_line(error)}): save it again."
            ) from error
        with file:
            yield file, _check_hdf5(file, what, stored, kind)


def _check_hdf5(file: h5py.File, what: str, stored: int, kind: type[InputError]) -> int:
    """Bytes of all data sets. One in another file, or larger than it should be, is refused."""
    found: dict[str, h5py.Dataset] = {}

    def is_link(name: str, link: Any) -> str | None:
        return None if isinstance(link, h5py.HardLink) else name

    def note(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            found[name] = item

    with damage_named(what, kind):
        # HDF5 changes what a visitor raises; a returned value ends the visit.
        link = file.visititems_links(is_link)
        if link is not None:
            raise kind(f"{what} holds '{link}', a link to other data: links are not followed.")
        file.visititems(note)
        total = 0
        for name, item in found.items():
            if item.external or item.is_virtual:
                raise kind(f"{what} holds '{name}', which is kept in another file: it is not read.")
            size = math.prod(item.shape or ()) * item.dtype.itemsize
            held = item.id.get_storage_size()
            check_growth(size, held, f"{what}, of which '{name}'", kind, RATIO, FLOOR)
            total += size
    check_growth(total, stored, what, kind, RATIO, FLOOR)
    return total


def check_arrays(
    archive: zipfile.ZipFile, names: Iterable[str], path: Path, kind: type[InputError]
) -> None:
    """Refuse arrays in a NumPy archive whose data is incomplete, or that do not fit into memory."""
    needed = 0
    for name in names:
        info = archive.getinfo(name)
        with damage_named(f"'{path}'", kind), archive.open(info) as member:
            if member.read(len(npy.MAGIC_PREFIX)) != npy.MAGIC_PREFIX:
                continue
            member.seek(0)
            shape, dtype = _npy_header(member)
            size = math.prod(shape) * dtype.itemsize
            held = info.file_size - member.tell()
        if not dtype.hasobject and size != held:
            raise kind(
                f"'{name}' in '{path}' is damaged: its shape {shape} would take {in_units(size)}, "
                f"and there are {in_units(held)}."
            )
        needed += size
    check_memory(needed, f"The data in '{path}'", kind)


@contextmanager
def damage_named(what: str, kind: type[InputError]) -> Iterator[None]:
    """Turn what a library raises for damaged bytes in the block into an error that names the file.

    Raises:
        InputError: Of that kind; one that is raised in the block stays as it is.
    """
    try:
        yield
    except InputError:
        raise
    # For damaged bytes libraries raise errors of many classes.
    except Exception as error:
        raise kind(f"{what} is damaged ({in_one_line(error)}): get it again.") from error


def member_file(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> IO[bytes]:
    """A member of an archive as a file that can be read from any position."""
    if info.compress_type != zipfile.ZIP_STORED:
        return io.BytesIO(archive.read(info))
    window = _Window(Path(str(archive.filename)), member_offset(archive, info), info.file_size)
    return io.BufferedReader(window)


def member_offset(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> int:
    """Position of the first byte of a member, behind its header, which gives its own length."""
    with Path(str(archive.filename)).open("rb") as raw:
        raw.seek(info.header_offset)
        name, extra = struct.unpack("<26x2H", raw.read(30))
    return info.header_offset + 30 + int(name) + int(extra)


class _Window(io.RawIOBase):
    """A part of a file, as a file of its own."""

    def __init__(self, path: Path, begin: int, size: int) -> None:
        super().__init__()
        self._raw, self._begin, self._size, self._at = path.open("rb"), begin, size, 0

    def close(self) -> None:
        self._raw.close()
        super().close()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        self._at = start + offset
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        self._raw.seek(self._begin + self._at)
        data = self._raw.read(max(0, min(len(buffer), self._size - self._at)))
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


def _check_names(infos: Sequence[zipfile.ZipInfo], path: Path, kind: type[InputError]) -> None:
    name, times = Counter(info.filename for info in infos).most_common(1)[0] if infos else ("", 1)
    if times > 1:
        raise kind(f"'{path}' holds '{name}' {times} times, and only one can count: save it again.")


def _check_members(archive: zipfile.ZipFile, what: str, fix: str, kind: type[InputError]) -> None:
    """Read everything once, piece by piece, which compares the checksums."""
    for info in archive.infolist():
        try:
            with archive.open(info) as member:
                while member.read(_CHUNK):
                    pass
        except _BROKEN as error:
            raise kind(
                f"{what}: its '{info.filename}' is damaged ({in_one_line(error)}). Get it again, "
                f"or {fix}."
            ) from error


def _npy_header(member: Any) -> tuple[tuple[int, ...], Any]:
    version = npy.read_magic(member)
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, _, dtype = read(member)
    return shape, dtype


def _free_memory() -> int | None:
    """Bytes that can be taken without swapping; `None` where the system does not report it."""
    found = []
    with contextlib.suppress(OSError, ValueError, IndexError):
        rows = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        free = [row.split()[1] for row in rows if row.startswith("MemAvailable")]
        found.append(1024 * int(free[0]))
    # Of a container, where it has a limit.
    group = Path("/sys/fs/cgroup")
    with contextlib.suppress(OSError, ValueError):
        limit, used = (int((group / f"memory.{name}").read_text()) for name in ("max", "current"))
        found.append(limit - used)
    return min(found, default=None)


def in_units(count: int) -> str:
    """A number of bytes in the largest unit that gives a whole number, such as `"3 MiB"`.

    Args:
        count: Number of bytes.
    """
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if count < 1024 or unit == "GiB":
            break
        count //= 1024
    return f"{count:,} {unit}"
