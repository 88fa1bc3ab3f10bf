"""Tensors in a file: the position of each, and views of one at a time."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from saikei.archives import damage_named
from saikei.errors import ModelError
from saikei.merging.kernels.blocks import Array


@dataclass(frozen=True)
class Entry:
    """A tensor in a file.

    Args:
        shape: The shape of the tensor.
        dtype: A NumPy type, or one of `ml_dtypes`.
        offset: The position of its first byte in the file; `None` where its bytes are not in one
            piece.
        stored: An HDF5 data set, which is read where there is no offset.
        file: The file that it is in; `None` for that of the whole store.
    """

    shape: tuple[int, ...]
    dtype: Any
    offset: int | None
    stored: Any = field(default=None, compare=False, repr=False)
    file: Path | None = None

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return math.prod(self.shape) * int(np.dtype(self.dtype).itemsize)


@dataclass(frozen=True)
class Store:
    """The tensors of one file.

    Args:
        path: The path of the file.
        bytes_in: The file that holds the tensors' bytes: the same, or one unpacked from it.
        entries: The tensors by name.
        writable: Whether views of the tensors can be written to.
        extra: What else a copy of the file needs, such as metadata.
    """

    path: Path
    bytes_in: Path
    entries: Mapping[str, Entry] = field(repr=False)
    writable: bool = False
    extra: Any = field(default=None, repr=False)

    def array(self, name: str) -> Array:
        """A view of a tensor in the file; it takes memory only while it is used.

        Raises:
            ModelError: When its numbers are damaged.
        """
        entry = self.entries[name]
        if entry.nbytes == 0:
            return np.zeros(entry.shape, entry.dtype)
        with damage_named(f"Tensor '{name}' in '{self.path}'", ModelError):
            raw = self._whole(entry) if entry.offset is None else self._mapped(entry, entry.offset)
            view: Array = raw.view(entry.dtype).reshape(entry.shape)
        return view

    def _whole(self, entry: Entry) -> Array:
        """All numbers at once; HDF5 compares checksums where there are any."""
        return np.asarray(entry.stored[()])

    def _mapped(self, entry: Entry, offset: int) -> Array:
        return np.asarray(
            np.memmap(
                entry.file or self.bytes_in,
                dtype=np.uint8,
                mode="r+" if self.writable else "r",
                offset=offset,
                shape=(entry.nbytes,),
            )
        )
