"""Work on flat arrays in blocks that stay in cache, on several threads."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from saikei.errors import FusionError

Array: TypeAlias = NDArray[Any]
# Elements of a block: it stays in the second level of the cache, and is large enough that threads
# spend their time in NumPy and not waiting for each other.
BLOCK = 1 << 16
# Smaller spans are not worth a thread.
_SPAN = 1 << 19
_THREADS = 4


def compute_types(dtype: Any) -> tuple[Any, Any]:
    """The types in which numbers are compared and in which they are summed.

    Args:
        dtype: of the tensors.

    Raises:
        FusionError: when it is no real floating type.
    """
    if not is_float(dtype):
        raise FusionError(f"Numbers of type {np.dtype(dtype)} cannot be averaged: cast them.")
    # np.float16 counts as smaller than ml_dtypes.bfloat16 in no order: go by the size.
    return (np.float64, np.longdouble) if np.dtype(dtype).itemsize > 4 else (np.float32, np.float64)


def is_float(dtype: Any) -> bool:
    """Whether a type is a real floating one; those of `ml_dtypes` are of NumPy's kind `"V"`."""
    name = str(np.dtype(dtype).name)
    return name.startswith(("float", "bfloat", "longdouble"))


def flat_views(arrays: Sequence[Array]) -> list[Array]:
    """The arrays as one-dimensional ones, without a copy where memory allows.

    Raises:
        FusionError: when there are none, or their shapes or types differ.
    """
    if not arrays:
        raise FusionError("There is no array to merge: give at least one.")
    first = arrays[0]
    for number, array in enumerate(arrays, start=1):
        if array.shape != first.shape or array.dtype != first.dtype:
            raise FusionError(
                f"Array {number} is {array.dtype} of shape {array.shape} and array 1 is "
                f"{first.dtype} of shape {first.shape}: merge arrays that are alike."
            )
    return [np.ascontiguousarray(array).reshape(-1) for array in arrays]


def output_for(array: Array, out: Array | None) -> Array:
    """Where the result goes: `out`, or a new array like the given one."""
    return np.empty(array.shape, array.dtype) if out is None else out


def blocks(start: int, stop: int) -> Iterator[tuple[int, int]]:
    """The blocks of a span; all but the last have `BLOCK` elements."""
    for first in range(start, stop, BLOCK):
        yield first, min(first + BLOCK, stop)


def over_spans(size: int, work: Callable[[int, int], Any]) -> list[Any]:
    """Call `work(start, stop)` on spans that cover `range(size)`, on threads where it is large.

    Spans begin where blocks do, so that their division changes no number.

    Args:
        size: number of elements.
        work: may be called from several threads at once.

    Returns:
        What each call gave, in order.
    """
    count = max(1, min(_THREADS, os.cpu_count() or 1, size // _SPAN))
    if count == 1:
        return [work(0, size)]
    length = -(-size // count // BLOCK) * BLOCK + BLOCK
    spans = [(at, min(at + length, size)) for at in range(0, size, length)]
    with ThreadPoolExecutor(len(spans)) as pool:
        return list(pool.map(lambda span: work(*span), spans))


def check_finite(total: Array) -> None:
    """Refuse sums that are NaN or infinite.

    Raises:
        FusionError: without a name, which the caller knows.
    """
    if not np.isfinite(total.sum()):
        raise FusionError(
            "The merged numbers are not finite: a member holds NaN or infinite weights."
        )
