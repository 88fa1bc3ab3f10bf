"""`.safetensors`: eight bytes of length, a header in JSON, and the tensors one behind another.

The format's own package needs all tensors in memory to write them; here each is written by itself. https://github.com/huggingface/safetensors
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import ml_dtypes
import numpy as np

from saikei.errors import ModelError
from saikei.merging.files.store import Entry, Store
from saikei.reading import parse_json
from saikei.writing import reserve

_TYPES: Mapping[str, Any] = MappingProxyType(
    {
        "F64": np.float64,
        "F32": np.float32,
        "F16": np.float16,
        "BF16": ml_dtypes.bfloat16,
        "F8_E4M3": ml_dtypes.float8_e4m3fn,
        "F8_E5M2": ml_dtypes.float8_e5m2,
        "I64": np.int64,
        "I32": np.int32,
        "I16": np.int16,
        "I8": np.int8,
        "U64": np.uint64,
        "U32": np.uint32,
        "U16": np.uint16,
        "U8": np.uint8,
        "BOOL": np.bool_,
    }
)
# As in the format's own package: more is no header but an attack.
_LONGEST_HEADER = 100_000_000


@contextmanager
def opened(path: Path) -> Iterator[Store]:
    """The tensors of a file.

    Raises:
        ModelError: When the header cannot be read, or points outside the file.
    """
    header, begin = _header(path)
    metadata = header.pop("__metadata__", None)
    size = path.stat().st_size - begin
    entries = {name: _entry(path, name, record, begin, size) for name, record in header.items()}
    if sum(entry.nbytes for entry in entries.values()) > size:
        raise ModelError(f"Tensors in '{path}' overlap: it is damaged, get it again.")
    yield Store(path, path, entries, extra=metadata)


@contextmanager
def created(path: Path, like: Store) -> Iterator[Store]:
    """A new file with the tensors of another, to be written to."""
    names = {np.dtype(kind): name for name, kind in _TYPES.items()}
    header: dict[str, Any] = {} if like.extra is None else {"__metadata__": like.extra}
    at = 0
    for name, entry in like.entries.items():
        header[name] = {
            "dtype": names[np.dtype(entry.dtype)],
            "shape": list(entry.shape),
            "data_offsets": [at, at + entry.nbytes],
        }
        at += entry.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    begin = 8 + len(text)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
    reserve(path, begin + at)
    entries = {
        name: Entry(entry.shape, entry.dtype, begin + header[name]["data_offsets"][0])
        for name, entry in like.entries.items()
    }
    yield Store(path, path, entries, writable=True)


def _header(path: Path) -> tuple[dict[str, Any], int]:
    with path.open("rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if not 0 < length <= min(_LONGEST_HEADER, path.stat().st_size - 8):
            raise ModelError(f"'{path}' is no safetensors file: its header has no such length.")
        header = parse_json(
            file.read(length), f"'{path}' is no safetensors file: its header", ModelError
        )
    if not isinstance(header, dict):
        raise ModelError(f"'{path}' is no safetensors file: its header is no JSON object.")
    return header, 8 + length


def _entry(path: Path, name: str, record: Any, begin: int, size: int) -> Entry:
    try:
        kind, shape = _TYPES[record["dtype"]], tuple(int(axis) for axis in record["shape"])
        first, last = (int(offset) for offset in record["data_offsets"])
        # NumPy refuses shapes that no array can have, even an empty one.
        np.broadcast_to(np.zeros((), kind), shape)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ModelError(
            f"Tensor '{name}' in '{path}' cannot be read: its type, shape or offsets are not valid."
        ) from error
    fits = 0 <= first <= last <= size and min(shape, default=0) >= 0
    if not fits or last - first != math.prod(shape) * np.dtype(kind).itemsize:
        raise ModelError(
            f"Tensor '{name}' in '{path}' is outside the file: it is damaged, get it again."
        )
    return Entry(shape, kind, begin + first)
