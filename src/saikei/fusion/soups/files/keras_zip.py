"""`.keras`: an archive of a config, the weights as HDF5, and assets such as vocabularies."""

from __future__ import annotations

import io
import json
import os
import shutil
import struct
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import h5py

from saikei.errors import ModelError
from saikei.fusion.soups.architecture import stripped
from saikei.fusion.soups.files import hdf5
from saikei.fusion.soups.files.store import Store

_WEIGHTS, _CONFIG = "model.weights.h5", "config.json"
_CHUNK = 1 << 20
_NAMES = ("keras_history", "inbound_nodes", "input_layers", "output_layers")


@contextmanager
def opened(path: Path) -> Iterator[Store]:
    """The tensors of a file, where they lie in the archive; nothing of it is executed.

    Raises:
        ModelError: when the file is no such archive, or its weights are compressed.
    """
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError) as error:
        raise ModelError(f"'{path}' is no .keras file: save it with model.save.") from error
    with archive, path.open("rb") as raw:
        try:
            info = archive.getinfo(_WEIGHTS)
        except KeyError as error:
            raise ModelError(f"'{path}' holds no weights: save it with model.save.") from error
        if info.compress_type != zipfile.ZIP_STORED:
            raise ModelError(
                f"The weights in '{path}' are compressed: load it and save it again with Keras."
            )
        begin = _data_offset(raw, info)
        try:
            file = h5py.File(_Window(raw, begin, info.file_size), "r")
        except OSError as error:
            raise ModelError(f"The weights in '{path}' are damaged: save it again.") from error
        with file:
            entries = hdf5.read_entries(file, path, begin)
            yield Store(path, path, entries, extra=_Parts(archive, file))


@contextmanager
def created(path: Path, like: Store) -> Iterator[Store]:
    """A new file with the tensors of another, to be written to; it is packed at the end."""
    parts: _Parts = like.extra
    weights = path.with_name(f"{path.name}.weights")
    try:
        frame = Store(like.path, like.path, like.entries, extra=parts.weights)
        with hdf5.created(weights, frame) as store:
            yield Store(path, weights, store.entries, writable=True)
        with zipfile.ZipFile(path, "w") as archive:
            for info in parts.archive.infolist():
                if info.filename == _CONFIG:
                    archive.writestr(_CONFIG, _uncompiled(parts.archive.read(info)))
                elif info.filename != _WEIGHTS:
                    _copy(parts.archive, archive, info)
            archive.write(weights, _WEIGHTS)
    finally:
        weights.unlink(missing_ok=True)


def assets(store: Store) -> dict[str, int]:
    """Checksums of what an archive holds beside config and weights."""
    own = (_WEIGHTS, _CONFIG, "metadata.json")
    infos = store.extra.archive.infolist()
    return {info.filename: info.CRC for info in infos if info.filename not in own}


def settings(store: Store) -> Any:
    """The config of the model without names, which say nothing of what it computes."""
    config = json.loads(store.extra.archive.read(_CONFIG))
    return stripped(config.get("config"), _NAMES)


class _Parts:
    """An open archive, and the weights in it."""

    def __init__(self, archive: zipfile.ZipFile, weights: h5py.File) -> None:
        self.archive = archive
        self.weights = weights


def _uncompiled(config: bytes) -> str:
    """The config of a model that was not trained itself."""
    parsed: dict[str, Any] = json.loads(config)
    parsed.pop("compile_config", None)
    return json.dumps(parsed)


def _copy(source: zipfile.ZipFile, target: zipfile.ZipFile, info: zipfile.ZipInfo) -> None:
    if info.is_dir():
        target.writestr(info, b"")
        return
    with source.open(info) as given, target.open(info.filename, "w") as taken:
        shutil.copyfileobj(given, taken, _CHUNK)


def _data_offset(raw: IO[bytes], info: zipfile.ZipInfo) -> int:
    """Where an entry's bytes begin: behind a header whose length only it knows."""
    raw.seek(info.header_offset)
    name, extra = struct.unpack("<26x2H", raw.read(30))
    return info.header_offset + 30 + int(name) + int(extra)


class _Window(io.RawIOBase):
    """A part of a file, as a file of its own."""

    def __init__(self, raw: IO[bytes], begin: int, size: int) -> None:
        self._raw, self._begin, self._size, self._at = raw, begin, size, 0

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
