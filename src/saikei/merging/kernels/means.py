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
                _sum_into(parts, a)
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


def _sum_into(parts: Sequence[Array], total: Array) -> None:
    """In the type of the total, widened as they are added: each part is read once."""
    if len(parts) == 1:
        np.copyto(total, parts[0], casting="unsafe")
        return
    np.add(parts[0], parts[1], out=total, dtype=total.dtype, casting="unsafe")
    for part in parts[2:]:
        np.add(total, part, out=total, dtype=total.dtype, casting="unsafe")


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
