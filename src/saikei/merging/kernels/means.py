"""Weighted means of tensors, `Σ wᵢ xᵢ`: of given weights, or of weights computed from the tensors.

Shoemake, "Animating rotation", 1985 (slerp); Jang et al., "Model Stock: All we need is just a few
fine-tuned models", 2024; Matena and Raffel, "Merging models with Fisher-weighted averaging", 2022.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from saikei.errors import FusionError
from saikei.merging.kernels.blocks import (
    BLOCK,
    Array,
    Merger,
    blocks,
    check_finite,
    compute_types,
    fill_blocks,
    flat_views,
    over_spans,
)

# Cosine of nearly parallel tensors: sin ω has no digits left, and the arc is a straight line.
_PARALLEL = 0.9995


def linear(
    arrays: Sequence[Array], weights: Sequence[float] | None = None, out: Array | None = None
) -> Array:
    """The weighted mean of arrays of one shape and type.

    Args:
        arrays: One array for each member.
        weights: One for each member, with sum 1; `None` for equal ones.
        out: The array to write to, of the arrays' shape and type; `None` for a new one.

    Returns:
        The mean, rounded once from sums in the next wider type.

    Raises:
        FusionError: When the arrays differ in shape or type, or the result is not finite.
    """
    flat = flat_views(arrays)
    _, wide = compute_types(flat[0].dtype)

    def worker() -> Merger:
        total, term = np.empty(BLOCK, wide), np.empty(BLOCK, wide)

        def merge(block: slice, target: Array) -> Array:
            parts = [array[block] for array in flat]
            a, t = total[: target.size], term[: target.size]
            if weights is None:
                _sum_into(parts, a)
                np.divide(a, len(parts), out=target, casting="unsafe")
                return a
            np.multiply(parts[0], weights[0], out=a, dtype=wide, casting="unsafe")
            for part, weight in zip(parts[1:], weights[1:], strict=True):
                np.multiply(part, weight, out=t, dtype=wide, casting="unsafe")
                np.add(a, t, out=a)
            np.copyto(target, a, casting="unsafe")
            return a

        return merge

    return fill_blocks(arrays[0], out, worker)


def _sum_into(parts: Sequence[Array], total: Array) -> None:
    """Sum in the type of the total; each part is widened as it is added, and read once."""
    if len(parts) == 1:
        np.copyto(total, parts[0], casting="unsafe")
        return
    np.add(parts[0], parts[1], out=total, dtype=total.dtype, casting="unsafe")
    for part in parts[2:]:
        np.add(total, part, out=total, dtype=total.dtype, casting="unsafe")


def slerp(arrays: Sequence[Array], t: float = 0.5, out: Array | None = None) -> Array:
    """`(sin((1−t)ω) a + sin(tω) b) / sin ω`, with ω the angle between two tensors as vectors.

    Args:
        arrays: Two arrays of one shape.
        t: Position between the first and the second, 0 to 1.
        out: The array to write to; `None` for a new one.

    Returns:
        The interpolated tensor; linearly interpolated where both are parallel, opposite or zero.

    Raises:
        FusionError: When there are not two arrays, or they differ in shape or type.
    """
    if len(arrays) != 2:
        raise FusionError(f"Slerp is between two models, got {len(arrays)}: give two.")
    return linear(arrays, _slerp_weights(flat_views(arrays), t), out)


def _slerp_weights(flat: Sequence[Array], t: float) -> tuple[float, float]:
    """The factors of the two vectors."""
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


def model_stock(arrays: Sequence[Array], base: Array, out: Array | None = None) -> Array:
    """`t · mean + (1 − t) · base` with `t = n cos θ / (1 + (n − 1) cos θ)`.

    θ is the angle between the members' differences to the base; of more than two members, cos θ is
    the mean of the cosines.

    Args:
        arrays: One array for each member.
        base: The array of the model that all members were fine-tuned from.
        out: The array to write to; `None` for a new one.

    Raises:
        FusionError: When the arrays differ in shape or type.
    """
    *flat, origin = flat_views([*arrays, base])
    share = _stock_share(inner_products(flat, origin))
    weights = [*(share / len(arrays) for _ in arrays), 1 - share]
    if share in (0.0, 1.0):
        # Equal members, or members equal to the base, give the same bits.
        return linear(list(arrays) if share else [base], None, out)
    return linear([*arrays, base], weights, out)


def _stock_share(products: Array) -> float:
    """The `t` of the formula, 0 to 1.

    Args:
        products: Inner products of the members' differences to the base, float64 `(n, n)`.
    """
    count = len(products)
    lengths = np.sqrt(np.diag(products))
    if count < 2 or not lengths.all():
        # A member that equals the base has no angle.
        return 1.0 if count < 2 else 0.0
    cosines = products / np.outer(lengths, lengths)
    cosine = float((cosines.sum() - np.trace(cosines)) / (count * (count - 1)))
    if cosine >= 1 - 1e-12:
        return 1.0
    return max(0.0, count * cosine / (1 + (count - 1) * cosine))


def fisher(
    arrays: Sequence[Array], information: Sequence[Array], out: Array | None = None
) -> Array:
    """`Σ Fᵢ xᵢ / Σ Fᵢ`, element by element; the plain mean where no member has information.

    Args:
        arrays: One array for each member.
        information: The diagonal of each member's Fisher matrix, of the arrays' shape, ≥ 0.
        out: The array to write to; `None` for a new one.

    Raises:
        FusionError: When the arrays differ in shape or type, or the result is not finite.
    """
    flat, weights = flat_views(arrays), flat_views(information)
    _, wide = compute_types(flat[0].dtype)

    def merge(block: slice, target: Array) -> Array:
        numbers = [array[block].astype(wide) for array in flat]
        shares = [array[block].astype(wide) for array in weights]
        known = sum(shares[1:], start=shares[0])
        blind = known <= 0
        known[blind] = len(flat)
        for share in shares:
            share[blind] = 1
        terms = [n * s for n, s in zip(numbers, shares, strict=True)]
        total = np.asarray(sum(terms[1:], start=terms[0]) / known)
        np.copyto(target, total, casting="unsafe")
        return total

    return fill_blocks(arrays[0], out, lambda: merge)


def inner_products(flat: Sequence[Array], base: Array | None = None) -> Array:
    """The matrix of all `⟨xᵢ − b, xⱼ − b⟩`, float64.

    Args:
        flat: One-dimensional arrays of one size.
        base: The array `b` that is subtracted from each of them; `None` for zeros.

    Raises:
        FusionError: When a number is not finite.
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
