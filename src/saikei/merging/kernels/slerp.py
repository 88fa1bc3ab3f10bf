"""Spherical interpolation of two tensors (Shoemake, "Animating rotation", 1985)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from saikei.errors import FusionError
from saikei.merging.kernels.blocks import Array, flat_views
from saikei.merging.kernels.linear import linear
from saikei.merging.kernels.sums import inner_products

# Nearly parallel tensors: the sphere is flat there, and sin ω has no digits left.
_PARALLEL = 0.9995


def slerp(arrays: Sequence[Array], t: float = 0.5, out: Array | None = None) -> Array:
    """`(sin((1−t)ω) a + sin(tω) b) / sin ω`, with ω the angle between two tensors as vectors.

    Args:
        arrays: two.
        t: how far from the first to the second, 0 to 1.
        out: where to write.

    Returns:
        The tensor between; on the straight line where they are parallel, opposite or zero.

    Raises:
        FusionError: when there are not two arrays, or they differ in shape or type.
    """
    if len(arrays) != 2:
        raise FusionError(f"Slerp is between two models, got {len(arrays)}: give two.")
    return linear(arrays, slerp_weights(flat_views(arrays), t), out)


def slerp_weights(flat: Sequence[Array], t: float) -> tuple[float, float]:
    """By what each of two vectors is multiplied."""
    products = inner_products(flat)
    lengths = float(np.sqrt(products[0, 0] * products[1, 1]))
    cosine = float(products[0, 1]) / lengths if lengths > 0 else 1.0
    if abs(cosine) > _PARALLEL:
        return 1 - t, t
    angle = np.arccos(cosine)
    return (
        float(np.sin((1 - t) * angle) / np.sin(angle)),
        float(np.sin(t * angle) / np.sin(angle)),
    )
