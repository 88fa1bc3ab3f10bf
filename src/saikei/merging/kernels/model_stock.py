"""Model stock: how far to go from the base to the mean, from the angle between the members.

Jang et al., "Model Stock: All we need is just a few fine-tuned models", 2024.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from saikei.merging.kernels.blocks import Array, flat_views
from saikei.merging.kernels.linear import linear
from saikei.merging.kernels.sums import inner_products


def model_stock(arrays: Sequence[Array], base: Array, out: Array | None = None) -> Array:
    """`t · mean + (1 − t) · base` with `t = n cos θ / (1 + (n − 1) cos θ)`.

    θ is the angle between the members' differences to the base; of more than two, the mean of the
    cosines counts.

    Args:
        arrays: one for each member.
        base: what all members were fine-tuned from.
        out: where to write.

    Raises:
        FusionError: when the arrays differ in shape or type.
    """
    *flat, origin = flat_views([*arrays, base])
    share = stock_share(inner_products(flat, origin))
    weights = [*(share / len(arrays) for _ in arrays), 1 - share]
    if share in (0.0, 1.0):
        # So that equal members, and a base that nobody left, come out bit by bit.
        return linear(list(arrays) if share else [base], None, out)
    return linear([*arrays, base], weights, out)


def stock_share(products: Array) -> float:
    """The `t` of the formula, 0 to 1.

    Args:
        products: inner products of the members' differences to the base, float64 `(n, n)`.
    """
    count = len(products)
    lengths = np.sqrt(np.diag(products))
    if count < 2 or not lengths.all():
        # A member that did not move says nothing about an angle.
        return 1.0 if count < 2 else 0.0
    cosines = products / np.outer(lengths, lengths)
    cosine = float((cosines.sum() - np.trace(cosines)) / (count * (count - 1)))
    if cosine >= 1 - 1e-12:
        return 1.0
    return max(0.0, count * cosine / (1 + (count - 1) * cosine))
