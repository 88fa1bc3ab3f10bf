"""The k-th largest magnitude of a difference, found without sorting all of it."""

from __future__ import annotations

import numpy as np

from saikei.errors import FusionError
from saikei.fusion.soups.kernels.blocks import BLOCK, Array, blocks, compute_types, over_spans

# From this size on a sample says between which two numbers to look.
_LARGE = 1 << 18
_SAMPLE = 1 << 14
# Ranks of the sample to either side of the wanted one: eight standard errors.
_MARGIN = 512


def magnitude_threshold(array: Array, base: Array, density: float) -> float:
    """The magnitude that the largest `density` of the differences `|x − b|` reach.

    A sample bounds it from both sides; one pass counts what lies above the bounds and collects
    what lies between, which is sorted out exactly (Floyd and Rivest, 1975).

    Args:
        array: one-dimensional.
        base: of the same size and type.
        density: share that is kept, above 0 and at most 1; at least one element is.

    Returns:
        The smallest magnitude that is kept; with density 1, or no elements, 0.

    Raises:
        FusionError: when a difference is NaN.
    """
    size = array.size
    kept = kept_count(size, density)
    if kept >= size:
        return 0.0
    if size < _LARGE:
        return _selected(_magnitudes(array, base), kept)
    low, high = _bounds(array, base, kept / size)
    above, between = _between(array, base, low, high)
    if not above < kept <= above + len(between):
        return _selected(_magnitudes(array, base), kept)
    return _selected(between, kept - above)


def kept_count(size: int, density: float) -> int:
    """How many of `size` elements a density keeps."""
    return min(size, max(1, round(density * size)))


def _magnitudes(array: Array, base: Array, out: Array | None = None) -> Array:
    narrow, _ = compute_types(array.dtype)
    difference = np.subtract(array, base, out=out, dtype=narrow, casting="unsafe")
    return np.abs(difference, out=difference)


def _selected(magnitudes: Array, kept: int) -> float:
    """The kept-th largest."""
    place = len(magnitudes) - kept
    split = np.partition(magnitudes, place)
    # NaN sorts behind everything.
    if np.isnan(split[place:]).any():
        raise FusionError("The members' numbers are not finite: one holds NaN.")
    return float(split[place])


def _bounds(array: Array, base: Array, share: float) -> tuple[float, float]:
    step = max(1, array.size // _SAMPLE)
    sample = np.sort(_magnitudes(array[::step], base[::step]))
    place = round(len(sample) * (1 - share))
    low = sample[place - _MARGIN] if place > _MARGIN else 0.0
    high = sample[place + _MARGIN] if place + _MARGIN < len(sample) else np.inf
    return float(low), float(high)


def _between(array: Array, base: Array, low: float, high: float) -> tuple[int, Array]:
    """How many magnitudes are above `high` (or NaN), and those from `low` to `high`."""
    narrow, _ = compute_types(array.dtype)

    def work(start: int, stop: int) -> tuple[int, list[Array]]:
        scratch = np.empty(BLOCK, narrow)
        above, found = 0, []
        for first, last in blocks(start, stop):
            m = _magnitudes(array[first:last], base[first:last], scratch[: last - first])
            within = m <= high
            above += len(m) - int(np.count_nonzero(within))
            within &= m >= low
            found.append(m[within])
        return above, found

    spans = over_spans(array.size, work)
    parts = [part for _, found in spans for part in found]
    return sum(above for above, _ in spans), np.concatenate(parts)
