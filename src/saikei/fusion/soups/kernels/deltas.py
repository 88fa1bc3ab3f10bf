"""Merging what members learned beyond a base: a way to thin it out × a way to agree on it.

`base + λ · consensus(thinned(xᵢ − base))`. Ilharco et al., "Editing models with task arithmetic",
2023; Yadav et al., "TIES-merging", 2023; Yu et al., "Language models are super Mario" (DARE), 2023.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

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
from saikei.fusion.soups.kernels.threshold import magnitude_threshold

Consensus = Literal["mean", "sum", "sign"]
# From a member's place, its differences and the first index of a block to what stays of them.
Thin = Callable[[int, Array, int], Any]


def ties(
    arrays: Sequence[Array],
    base: Array,
    density: float = 0.2,
    scale: float = 1.0,
    out: Array | None = None,
) -> Array:
    """TIES: keep the largest differences, elect a sign for each number, average those that agree.

    Magnitudes are compared in float32 (float64 for float64). All that reach the threshold stay,
    so members may come in any order. Where kept differences cancel exactly, no sign is elected
    and the base stays.

    Args:
        arrays: one for each member.
        base: what all members were fine-tuned from.
        density: share of each member's differences that is kept, above 0 and at most 1.
        scale: λ, of the merged difference.
        out: where to write.

    Raises:
        FusionError: when the arrays differ in shape or type, or a number is not finite.
    """
    *flat, origin = flat_views([*arrays, base])
    thresholds = [magnitude_threshold(array, origin, density) for array in flat]

    def thin(place: int, differences: Array, first: int) -> Any:  # noqa: ARG001
        return np.abs(differences) >= thresholds[place]

    return merge_deltas(arrays, base, thin, "sign", scale, out=out)


def dare(
    arrays: Sequence[Array],
    base: Array,
    drop: float = 0.9,
    seed: Sequence[int] = (0,),
    consensus: Consensus = "mean",
    scale: float = 1.0,
    rescale: bool = True,
    out: Array | None = None,
) -> Array:
    """DARE: drop differences at random and multiply the others by `1 / (1 − drop)`.

    Args:
        arrays: one for each member.
        base: what all members were fine-tuned from.
        drop: probability, at least 0 and below 1.
        seed: whole numbers that say which are dropped, with the member's place.
        consensus: how those that are left become one: `"mean"`, `"sum"`, or `"sign"` as in TIES.
        scale: λ, of the merged difference.
        rescale: whether the others are multiplied.
        out: where to write.

    Raises:
        FusionError: when the arrays differ in shape or type, or the result is not finite.
    """

    def thin(place: int, differences: Array, first: int) -> Any:
        # One generator a block: the same numbers however the blocks are divided among threads.
        key = np.random.SeedSequence([*seed, place, first // BLOCK])
        return np.random.Generator(np.random.SFC64(key)).random(differences.size) >= drop

    factor = scale / (1 - drop) if rescale else scale
    return merge_deltas(arrays, base, thin if drop else None, consensus, factor, out=out)


def merge_deltas(
    arrays: Sequence[Array],
    base: Array,
    thin: Thin | None,
    consensus: Consensus,
    scale: float,
    out: Array | None = None,
) -> Array:
    """`base + λ · consensus(thinned differences)`, in one pass.

    The numbers that count are summed as they are, and the base by its own share, so that members
    that agree come out bit by bit: `λ Σ x / d + (1 − λ c / d) base` for `c` numbers that count.

    Args:
        arrays: one for each member.
        base: what all members were fine-tuned from.
        thin: says which differences of a block stay, as booleans; `None` for all.
        consensus: `"mean"` over all members, their `"sum"`, or `"sign"`: for each number the mean
            of those that have the sign of the sum.
        scale: λ.
        out: where to write.

    Raises:
        FusionError: when the arrays differ in shape or type, or the result is not finite.
    """
    *flat, origin = flat_views([*arrays, base])
    narrow, wide = compute_types(origin.dtype)
    result = output_for(base, out)
    target = result.reshape(-1)

    def work(start: int, stop: int) -> None:
        for first, last in blocks(start, stop):
            parts = [np.asarray(array[first:last], narrow) for array in flat]
            ground = np.asarray(origin[first:last], narrow)
            counts = _kept(parts, ground, thin, first)
            if consensus == "sign":
                counts = _agreeing(parts, ground, counts, wide)
            total, count = _counted(parts, counts, wide)
            divisor = {"mean": len(flat), "sum": 1, "sign": np.maximum(count, 1)}[consensus]
            total /= divisor
            total *= scale
            total += ground * (1 - scale * (count / divisor))
            check_finite(total)
            np.copyto(target[first:last], total, casting="unsafe")

    over_spans(target.size, work)
    return result


def _kept(
    parts: Sequence[Array], ground: Array, thin: Thin | None, first: int
) -> list[Array] | None:
    """For each member which of its numbers stay; `None` where all do."""
    if thin is None:
        return None
    return [thin(place, part - ground, first) for place, part in enumerate(parts)]


def _agreeing(
    parts: Sequence[Array], ground: Array, kept: list[Array] | None, wide: Any
) -> list[Array]:
    """For each member which of its kept differences have the sign of their sum."""
    differences = [part - ground for part in parts]
    total = np.zeros(ground.size, wide)
    for place, difference in enumerate(differences):
        if kept is not None:
            difference *= kept[place]
        total += difference
    check_finite(total)
    elected = np.sign(total).astype(ground.dtype)
    return [difference * elected > 0 for difference in differences]


def _counted(parts: Sequence[Array], counts: list[Array] | None, wide: Any) -> tuple[Array, Array]:
    """The sum of the numbers that count, and how many they are."""
    total = np.zeros(parts[0].size, wide)
    number = np.zeros(parts[0].size, np.uint16)
    for place, part in enumerate(parts):
        total += part if counts is None else part * counts[place]
        number += 1 if counts is None else counts[place]
    return total, number.astype(wide)
