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
# Writes the merged numbers of a slice into an array of its size and type, and returns them in the
# wider type, in which they were summed.
Merger: TypeAlias = Callable[[slice, Array], Array]
# Elements of a block: it fits into the second level of the cache, and is large enough that threads
# spend their time in NumPy and do not wait for each other.
BLOCK = 1 << 16
# Smaller spans are not worth a thread.
_SPAN = 1 << 19
_THREADS = 4


def compute_types(dtype: Any) -> tuple[Any, Any]:
    """The types in which numbers are compared and in which they are summed.

    Raises:
        FusionError: When it is no real floating type.
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
        FusionError: When there are none, or their shapes or types differ.
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


def fill_blocks(like: Array, out: Array | None, worker: Callable[[], Merger]) -> Array:
    """Fill an array block by block, on several threads where it is large.

    Args:
        like: An array of the shape and type of the result.
        out: The array to fill; `None` for a new one.
        worker: Called once on each thread, where it can allocate memory to work in; it returns a
            function that merges a block.

    Raises:
        FusionError: When a merged number is not finite.
    """
    result = np.empty(like.shape, like.dtype) if out is None else out
    target = result.reshape(-1)

    def work(start: int, stop: int) -> None:
        merge = worker()
        for first, last in blocks(start, stop):
            check_finite(merge(slice(first, last), target[first:last]))

    over_spans(target.size, work)
    return result


def blocks(start: int, stop: int) -> Iterator[tuple[int, int]]:
    """The blocks of a span; all but the last have `BLOCK` elements."""
    for first in range(start, stop, BLOCK):
        yield first, min(first + BLOCK, stop)


def over_spans(size: int, work: Callable[[int, int], Any]) -> list[Any]:
    """Call `work(start, stop)` on spans that cover `range(size)`, on threads where it is large.

    Spans begin where blocks do, so that their division changes no number.

    Args:
        size: The number of elements.
        work: Called with the first index of a span and the index behind its last; several threads
            may call it at once.

    Returns:
        The results of the calls, in order.
    """
    count = max(1, min(_THREADS, os.cpu_count() or 1, size // _SPAN))
    if count == 1:
        return [work(0, size)]
    length = -(-size // count // BLOCK) * BLOCK + BLOCK
    spans = [(at, min(at + length, size)) for at in range(0, size, length)]
    with ThreadPoolExecutor(len(spans)) as pool:
        return list(pool.map(lambda span: work(*span), spans))


def check_finite(total: Array) -> None:
    """Refuse sums that are NaN or infinite."""
    if not np.isfinite(total.sum()):
        raise FusionError(
            "The merged numbers are not finite: a member holds NaN or infinite weights."
        )
