"""Rows known by 64-bit digests of their inputs, so that they can be met again."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import Any

import numpy as np
from keras import tree

from saikei.batches import Array, as_arrays, as_numpy
from saikei.dataset_batches import dataset_batches, to_arrays
from saikei.errors import DataError

Digests = np.ndarray[Any, np.dtype[np.uint64]]

# Odd numbers without structure: the golden ratio, and those of Stafford's mix 13.
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1, _MIX_2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_HALF = np.uint64(32)
# Up to here float32 holds every whole number.
_EXACT = 1 << 24
# Numbers worked on at a time, so that they stay in the processor's cache.
_CHUNK = 1 << 16


def digest_data(data: Any, name: str = "given", inputs: int = 1) -> Digests:
    """The digest of the inputs of every sample, in the order of the data.

    Args:
        data: `(x, y)` arrays or a dataset, which is read once; labels are not needed.
        name: The name of the argument, for messages.
        inputs: How many inputs the models take.

    Raises:
        DataError: When the data is empty or never ends.
    """
    arrays = as_arrays(data, name, labels=False, inputs=inputs)
    if arrays is not None:
        return digest_rows(arrays.x)
    batches = dataset_batches(data, name, labels=False, inputs=inputs)
    parts = [digest_rows(to_arrays(batch, name).x) for batch in batches]
    if not parts:
        raise DataError(f"The {name} data is empty: give at least one batch.")
    return np.concatenate(parts)


def digest_rows(x: Any) -> Digests:
    """One digest for each row of the inputs.

    Numbers are compared as float32, so that one row has one digest whether it comes as uint8 or
    as float32, flat or as an image; whole numbers that float32 would round keep apart. Several
    inputs may come in any order. Two different rows share a digest with a probability of about
    2⁻⁶⁰.

    Args:
        x: Arrays with one sample a row, nested in any way.

    Returns:
        uint64 `(n,)`.
    """
    arrays = [as_numpy(leaf) for leaf in tree.flatten(x)]
    # A sum of mixed digests does not depend on the order of the inputs.
    each = [_mixed(_sums(array.reshape(len(array), -1))) for array in arrays]
    return np.asarray(_mixed(np.sum(each, axis=0, dtype=np.uint64)))


def _sums(rows: Array) -> Digests:
    """A multilinear hash of each row: Σ mix(xᵢ) kᵢ modulo 2⁶⁴ with odd random kᵢ."""
    count, width = rows.shape
    keys = _keys(width)
    sums = np.zeros(count, np.uint64)
    step = max(1, _CHUNK // max(width, 1))
    for start in range(0, count, step):
        part = rows[start : start + step]
        for words in _words(part):
            words *= _GOLDEN
            words ^= words >> _HALF
            sums[start : start + step] = sums[start : start + step] * _MIX_2 + words @ keys
    return sums


def _words(rows: Array) -> list[Digests]:
    """The numbers of a chunk of rows as integers: one array, or two for wide whole numbers."""
    if rows.dtype.kind in "OSUT":
        flat = [_text(value) for value in rows.reshape(-1)]
        return [np.array(flat, dtype=np.uint64).reshape(rows.shape)]
    if rows.dtype.kind not in "biuf":
        raise DataError(f"The inputs are of type {rows.dtype}: give numbers.")
    # Adding 0 makes one zero of the two that floats have.
    single = np.ascontiguousarray(rows, dtype=np.float32) + np.float32(0)
    words = single.view(np.uint32).astype(np.uint64)
    if rows.dtype.kind not in "iu" or rows.dtype.itemsize < 4:
        return [words]
    wide = np.where((rows > _EXACT) | (rows < -_EXACT), rows, 0)
    return [wide.astype(np.uint64), words]


def _text(value: Any) -> int:
    raw = value if isinstance(value, bytes) else str(value).encode()
    return int.from_bytes(hashlib.blake2b(raw, digest_size=8).digest(), "little")


@lru_cache(maxsize=8)
def _keys(width: int) -> Digests:
    drawn = np.random.default_rng(0).integers(0, 2**64, width, dtype=np.uint64)
    return drawn | np.uint64(1)


def _mixed(numbers: Any) -> Any:
    """Stafford's finaliser: every bit of the digest hangs on every bit of the sum."""
    numbers = (numbers ^ (numbers >> np.uint64(30))) * _MIX_1
    numbers = (numbers ^ (numbers >> np.uint64(27))) * _MIX_2
    return numbers ^ (numbers >> np.uint64(31))
