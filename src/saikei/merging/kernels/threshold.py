"""The k-th largest magnitude of differences, found without sorting all of it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from saikei.errors import FusionError
from saikei.merging.kernels.blocks import BLOCK, Array, blocks, compute_types, over_spans

# From this size on a sample bounds the threshold first.
_LARGE = 1 << 20
_SAMPLE = 1 << 16
# Ranks of the sample to either side of the expected one: eight standard errors.
_MARGIN = 1024


def magnitude_thresholds(arrays: Sequence[Array], base: Array, density: float) -> list[float]:
    """For each array the smallest magnitude `|x − b|` among its largest share `density`.

    A sample bounds it from both sides; one pass over all arrays counts the magnitudes above the
    bounds and collects those between, from which it is selected exactly (Floyd and Rivest, 1975).

    Args:
        arrays: One-dimensional arrays of differences.
        base: An array of the same size and type.
        density: The share that is kept, above 0 and at most 1; at least one element is kept.

    Returns:
        The smallest magnitudes that are kept; with density 1, or no elements, 0.

    Raises:
        FusionError: When a difference is NaN.
    """
    size = base.size
    kept = kept_count(size, density)
    if kept >= size:
        return [0.0 for _ in arrays]
    if size < _LARGE:
        return [_selected(_magnitudes(array, base), kept) for array in arrays]
    bounds = [_bounds(array, base, kept / size) for array in arrays]
    return [
        _selected(between, kept - above)
        if above < kept <= above + len(between)
        else _selected(_magnitudes(array, base), kept)
        for array, (above, between) in zip(arrays, _between(arrays, base, bounds), strict=True)
    ]


def kept_count(size: int, density: float) -> int:
    """How many of `size` elements a density keeps."""
    return min(size, max(1, round(density * size)))


def _magnitudes(array: Array, base: Array, out: Array | None = None) -> Array:
    narrow, _ = compute_types(array.dtype)
    difference = np.subtract(array, base, out=out, dtype=narrow, casting="unsafe")
    return np.abs(difference, out=difference)


def _selected(magnitudes: Array, kept: int) -> float:
    """The kept-th largest magnitude."""
    index = len(magnitudes) - kept
    split = np.partition(magnitudes, index)
    # NaN sorts behind everything.
    if np.isnan(split[index:]).any():
        raise FusionError("The members' numbers are not finite: one holds NaN.")
    return float(split[index])


def _bounds(array: Array, base: Array, share: float) -> tuple[float, float]:
    # An odd step meets all columns of a matrix, whose numbers of columns are mostly even.
    step = max(1, array.size // _SAMPLE) | 1
    sample = np.sort(_magnitudes(array[::step], base[::step]))
    rank = round(len(sample) * (1 - share))
    low = sample[rank - _MARGIN] if rank > _MARGIN else 0.0
    high = sample[rank + _MARGIN] if rank + _MARGIN < len(sample) else np.inf
    return float(low), float(high)


def _between(
    arrays: Sequence[Array], base: Array, bounds: Sequence[tuple[float, float]]
) -> list[tuple[int, Array]]:
    """For each array how many magnitudes are above (or NaN), and those from low to high."""
    narrow, _ = compute_types(base.dtype)

    def work(start: int, stop: int) -> list[tuple[int, list[Array]]]:
        scratch, counts = np.empty(BLOCK, narrow), [0 for _ in arrays]
        found: list[list[Array]] = [[] for _ in arrays]
        for first, last in blocks(start, stop):
            # The base's block stays in cache for all of them.
            for member, (array, (low, high)) in enumerate(zip(arrays, bounds, strict=True)):
                m = _magnitudes(array[first:last], base[first:last], scratch[: last - first])
                within = m <= high
                counts[member] += len(m) - int(np.count_nonzero(within))
                within &= m >= low
                found[member].append(np.compress(within, m))
        return list(zip(counts, found, strict=True))

    spans = over_spans(base.size, work)
    return [
        (sum(count for count, _ in each), np.concatenate([p for _, parts in each for p in parts]))
        for each in zip(*spans, strict=True)
    ]
