"""Files of weights, read and written tensor by tensor."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import TypeAlias

from saikei.errors import ModelError
from saikei.merging.files import hdf5, keras_zip, safetensors, sharded
from saikei.merging.files.store import Entry, Store

# What a file's name ends in, and what reads and writes such files.
_Opened: TypeAlias = Callable[[Path], AbstractContextManager[Store]]
_Created: TypeAlias = Callable[[Path, Store], AbstractContextManager[Store]]
FORMATS: Mapping[str, tuple[_Opened, _Created]] = MappingProxyType(
    {
        ".safetensors": (safetensors.opened, safetensors.created),
        sharded.INDEX: (sharded.opened, sharded.created),
        ".weights.h5": (hdf5.opened, hdf5.created),
        ".keras": (keras_zip.opened, keras_zip.created),
    }
)

# Formats without a config of their own that would have to fit the tensors' shapes and types.
RESHAPED = (".safetensors", sharded.INDEX)


def ending(path: Path) -> str:
    """Which format a file is of, by its name; folders, which need no ending, hold shards.

    Raises:
        ModelError: When its name has none of the known endings.
    """
    if path.is_dir() or not path.suffix:
        return sharded.INDEX
    for known in FORMATS:
        if path.name.endswith(known):
            return known
    raise ModelError(f"'{path}' is of no known format: its name must end in {', '.join(FORMATS)}.")


def open_store(path: Path) -> AbstractContextManager[Store]:
    """The tensors of a file, to be read one by one.

    Raises:
        ModelError: When there is no such file, or it cannot be read.
    """
    if not path.exists():
        raise ModelError(
            f"There is no file '{path}': give one of {', '.join(FORMATS)}, or a folder."
        )
    return FORMATS[ending(path)][0](path)


def new_store(
    path: Path, like: Store, entries: Mapping[str, Entry] | None = None
) -> AbstractContextManager[Store]:
    """A new file like another, to be filled tensor by tensor.

    Args:
        path: The path of the new file.
        like: The file whose configs and metadata are copied.
        entries: Names, shapes and types of its tensors, for the formats in `RESHAPED`; `None` for
            those of the other file.
    """
    kind = ending(path)
    if entries is not None and kind in RESHAPED:
        like = (
            sharded.with_entries(like, entries)
            if kind == sharded.INDEX
            else replace(like, entries=entries)
        )
    return FORMATS[kind][1](path, like)


__all__ = ["FORMATS", "RESHAPED", "Entry", "Store", "ending", "new_store", "open_store"]
