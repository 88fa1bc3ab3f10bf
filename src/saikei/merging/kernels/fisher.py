"""The mean weighted by how much each number matters to each member.

Matena and Raffel, "Merging models with Fisher-weighted averaging", 2022.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from saikei.merging.kernels.blocks import (
    Array,
    blocks,
    check_finite,
    compute_types,
    flat_views,
    output_for,
    over_spans,
)


def fisher(
    arrays: Sequence[Array], information: Sequence[Array], out: Array | None = None
) -> Array:
    """`Σ Fᵢ xᵢ / Σ Fᵢ`, element by element; the plain mean where no member has information.

    Args:
        arrays: one for each member.
        information: the diagonal of each member's Fisher matrix, of the arrays' shape, ≥ 0.
        out: where to write.

    Raises:
        FusionError: when the arrays differ in shape or type, or the result is not finite.
    """
    flat, weights = flat_views(arrays), flat_views(information)
    _, wide = compute_types(flat[0].dtype)
    result = output_for(arrays[0], out)
    target = result.reshape(-1)

    def work(start: int, stop: int) -> None:
        for first, last in blocks(start, stop):
            numbers = [array[first:last].astype(wide) for array in flat]
            shares = [array[first:last].astype(wide) for array in weights]
            known = sum(shares[1:], start=shares[0])
            blind = known <= 0
            known[blind] = len(flat)
            for share in shares:
                share[blind] = 1
            terms = [n * s for n, s in zip(numbers, shares, strict=True)]
            total = sum(terms[1:], start=terms[0]) / known
            check_finite(total)
            np.copyto(target[first:last], total, casting="unsafe")

    over_spans(target.size, work)
    return result
