"""`.weights.h5`: what Keras's `save_weights` writes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import ml_dtypes
import numpy as np

from saikei.archives import damage_named, opened_hdf5
from saikei.errors import ModelError
from saikei.merging.files.store import Entry, Store
from saikei.writing import reserve

# The state of an optimizer, which a merged model does not have.
_LEFT_OUT = "optimizer"


@contextmanager
def opened(path: Path) -> Iterator[Store]:
    """The tensors of a file; the state of an optimizer is left out.

    Raises:
        ModelError: When the file cannot be read, or keeps its numbers in other files.
    """
    with opened_hdf5(path.open("rb"), f"'{path}'", path.stat().st_size, ModelError) as (file, _):
        yield Store(path, path, read_entries(file, path), extra=file)


def read_entries(file: h5py.File, path: Path, begin: int = 0) -> dict[str, Entry]:
    """The tensors of an open file.

    Args:
        file: The file, open for reading.
        path: Its path, for messages.
        begin: The offset of the HDF5 file in the bytes on disk.
    """
    found: dict[str, Entry] = {}
    end = file.id.get_filesize()

    def note(name: str, item: Any) -> None:
        if not isinstance(item, h5py.Dataset) or name.split("/")[0] == _LEFT_OUT:
            return
        offset = item.id.get_offset()
        size = math.prod(item.shape or ()) * item.dtype.itemsize
        if offset is not None and offset + size > end:
            raise ModelError(f"'{name}' in '{path}' is outside the file: it is damaged.")
        kind = ml_dtypes.bfloat16 if item.attrs.get("dtype") == "bfloat16" else item.dtype
        found[name] = Entry(
            tuple(item.shape), kind, None if offset is None else begin + offset, item
        )

    with damage_named(f"'{path}'", ModelError):
        file.visititems(note)
    return found


@contextmanager
def created(path: Path, like: Store) -> Iterator[Store]:
    """A new file with the tensors of another, to be written to."""
    with h5py.File(path, "w") as file:
        _copy_frame(like.extra, file, like.path)
        entries = read_entries(file, path)
    reserve(path, path.stat().st_size)
    yield Store(
        path, path, {n: Entry(e.shape, e.dtype, e.offset) for n, e in entries.items()}, True
    )


def _copy_frame(source: h5py.File, target: h5py.File, path: Path) -> None:
    """Copy groups, attributes and the layout of tensors, without their numbers."""
    # Space is reserved at once, so that each tensor has an offset in the file.
    layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    layout.set_layout(h5py.h5d.CONTIGUOUS)
    layout.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    layout.set_fill_time(h5py.h5d.FILL_TIME_NEVER)

    def copy(name: str, item: Any) -> None:
        if name.split("/")[0] == _LEFT_OUT:
            return
        if isinstance(item, h5py.Dataset):
            space = h5py.h5s.create_simple(item.shape) if item.shape else item.id.get_space()
            h5py.h5d.create(target.id, name.encode(), item.id.get_type(), space, layout)
        else:
            target.require_group(name)
        for key, value in item.attrs.items():
            target[name].attrs[key] = value

    for key, value in source.attrs.items():
        target.attrs[key] = value
    source.visititems(copy)
    if any(np.dtype(item.dtype).hasobject for item in _datasets(target)):
        raise ModelError(f"'{path}' holds text among its weights: it is not merged.")


def _datasets(file: h5py.File) -> list[h5py.Dataset]:
    found: list[h5py.Dataset] = []
    file.visititems(lambda _, item: found.append(item) if isinstance(item, h5py.Dataset) else None)
    return found
