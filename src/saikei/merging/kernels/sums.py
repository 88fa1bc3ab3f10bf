"""Inner products of tensors, summed block by block so that the division changes nothing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from saikei.merging.kernels.blocks import Array, blocks, check_finite, over_spans


def inner_products(flat: Sequence[Array], base: Array | None = None) -> Array:
    """The matrix of all `⟨xᵢ − b, xⱼ − b⟩`, float64.

    Args:
        flat: one-dimensional arrays of one size.
        base: what is taken off each of them; `None` for nothing.

    Raises:
        FusionError: when a number is not finite.
    """
    count = len(flat)

    def work(start: int, stop: int) -> list[Array]:
        found = []
        for first, last in blocks(start, stop):
            rows = np.empty((count, last - first), np.float64)
            for row, array in zip(rows, flat, strict=True):
                np.copyto(row, array[first:last], casting="unsafe")
            if base is not None:
                rows -= base[first:last].astype(np.float64)
            found.append(np.einsum("in,jn->ij", rows, rows))
        return found

    parts = [part for span in over_spans(flat[0].size, work) for part in span]
    products = np.asarray(np.sum(parts, axis=0) if parts else np.zeros((count, count)))
    check_finite(products)
    return products
