"""The weighted mean of tensors, `Σ wᵢ xᵢ`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from saikei.fusion.soups.kernels.blocks import (
    BLOCK,
    Array,
    blocks,
    check_finite,
    compute_types,
    flat_views,
    output_for,
    over_spans,
)


def linear(
    arrays: Sequence[Array], weights: Sequence[float] | None = None, out: Array | None = None
) -> Array:
    """The weighted mean of arrays of one shape and type.

    Args:
        arrays: one for each member.
        weights: one for each member, with sum 1; `None` for equal ones.
        out: where to write, of the arrays' shape and type.

    Returns:
        The mean, rounded once from sums in the next wider type.

    Raises:
        FusionError: when the arrays differ in shape or type, or the result is not finite.
    """
    flat = flat_views(arrays)
    _, wide = compute_types(flat[0].dtype)
    result = output_for(arrays[0], out)
    target = result.reshape(-1)

    def work(start: int, stop: int) -> None:
        total, term = np.empty(BLOCK, wide), np.empty(BLOCK, wide)
        for first, last in blocks(start, stop):
            a, t = total[: last - first], term[: last - first]
            for place, array in enumerate(flat):
                into = t if place else a
                np.copyto(into, array[first:last], casting="unsafe")
                if weights is not None:
                    np.multiply(into, weights[place], out=into)
                if place:
                    np.add(a, t, out=a)
            if weights is None:
                np.divide(a, len(flat), out=a)
            check_finite(a)
            np.copyto(target[first:last], a, casting="unsafe")

    over_spans(target.size, work)
    return result
