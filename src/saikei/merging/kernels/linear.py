"""The weighted mean of tensors, `Σ wᵢ xᵢ`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from saikei.merging.kernels.blocks import (
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
            parts = [array[first:last] for array in flat]
            a, t, o = total[: len(parts[0])], term[: len(parts[0])], target[first:last]
            if weights is None:
                _sum(parts, a)
                np.divide(a, len(parts), out=o, casting="unsafe")
            else:
                np.multiply(parts[0], weights[0], out=a, dtype=wide, casting="unsafe")
                for part, weight in zip(parts[1:], weights[1:], strict=True):
                    np.multiply(part, weight, out=t, dtype=wide, casting="unsafe")
                    np.add(a, t, out=a)
                np.copyto(o, a, casting="unsafe")
            # In the wide type, whose sum cannot overflow: a mean lies between numbers that fit.
            check_finite(a)

    over_spans(target.size, work)
    return result


def _sum(parts: Sequence[Array], total: Array) -> None:
    """In the type of the total, widened as they are added: each part is read once."""
    if len(parts) == 1:
        np.copyto(total, parts[0], casting="unsafe")
        return
    np.add(parts[0], parts[1], out=total, dtype=total.dtype, casting="unsafe")
    for part in parts[2:]:
        np.add(total, part, out=total, dtype=total.dtype, casting="unsafe")
