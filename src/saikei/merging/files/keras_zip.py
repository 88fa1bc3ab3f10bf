"""`.keras`: an archive of a config, the weights as HDF5, and assets such as vocabularies."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py

from saikei.archives import damage_named, member_file, member_offset, opened_hdf5, opened_zip
from saikei.errors import ModelError
from saikei.merging.configs import stripped
from saikei.merging.files import hdf5
from saikei.merging.files.store import Store
from saikei.reading import parse_json

_WEIGHTS, _CONFIG = "model.weights.h5", "config.json"
_CHUNK = 1 << 20
_NAMES = ("keras_history", "inbound_nodes", "input_layers", "output_layers")


@contextmanager
def opened(path: Path) -> Iterator[Store]:
    """The tensors of a file, at their offsets in the archive; nothing of it is executed.

    Raises:
        ModelError: When the file is no such archive, or its weights are compressed.
    """
    with opened_zip(path, ".keras file", "save it with model.save", ModelError) as archive:
        try:
            info = archive.getinfo(_WEIGHTS)
        except KeyError as error:
            raise ModelError(f"'{path}' holds no weights: save it with model.save.") from error
        if info.compress_type != zipfile.ZIP_STORED:
            raise ModelError(
                f"The weights in '{path}' are compressed: load it and save it again with Keras."
            )
        weights, what = member_file(archive, info), f"'{path}' with its {_WEIGHTS}"
        with opened_hdf5(weights, what, info.file_size, ModelError) as (file, _):
            entries = hdf5.read_entries(file, path, member_offset(archive, info))
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
                    archive.writestr(_CONFIG, _uncompiled(_config(parts.archive, like.path)))
                elif info.filename != _WEIGHTS:
                    _copy(parts.archive, archive, info)
            archive.write(weights, _WEIGHTS)
    finally:
        weights.unlink(missing_ok=True)


def assets(store: Store) -> dict[str, int]:
    """Checksums of the files of an archive other than config and weights."""
    own = (_WEIGHTS, _CONFIG, "metadata.json")
    infos = store.extra.archive.infolist()
    return {info.filename: info.CRC for info in infos if info.filename not in own}


def settings(store: Store) -> Any:
    """The config of the model without names, which do not change what it computes."""
    return stripped(_config(store.extra.archive, store.path).get("config"), _NAMES)


class _Parts:
    """An open archive, and the weights in it."""

    def __init__(self, archive: zipfile.ZipFile, weights: h5py.File) -> None:
        self.archive = archive
        self.weights = weights


def _config(archive: zipfile.ZipFile, path: Path) -> dict[str, Any]:
    with damage_named(f"'{path}'", ModelError):
        config = parse_json(archive.read(_CONFIG), f"The config in '{path}'", ModelError)
    if not isinstance(config, dict):
        raise ModelError(f"The config in '{path}' is no JSON object: save it with model.save.")
    return config


def _uncompiled(config: dict[str, Any]) -> str:
    """The config without what the model was compiled with."""
    return json.dumps({key: value for key, value in config.items() if key != "compile_config"})


def _copy(source: zipfile.ZipFile, target: zipfile.ZipFile, info: zipfile.ZipInfo) -> None:
    if info.is_dir():
        target.writestr(info, b"")
        return
    with source.open(info) as given, target.open(info.filename, "w") as taken:
        shutil.copyfileobj(given, taken, _CHUNK)
