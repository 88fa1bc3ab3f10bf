"""Merging what members learned beyond a base: a way to thin it out × a way to agree on it.

`base + λ · consensus(thinned(xᵢ − base))`. Ilharco et al., "Editing models with task arithmetic",
2023; Yadav et al., "TIES-merging", 2023; Yu et al., "Language models are super Mario" (DARE), 2023.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

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
from saikei.merging.kernels.threshold import magnitude_thresholds

Consensus = Literal["mean", "sum", "sign"]
# From a member's place, the magnitudes of its differences and the first index of a block; writes
# which of them stay.
Thin = Callable[[int, Array, int, Array], None]


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
    thresholds = magnitude_thresholds(flat, origin, density)

    def thin(place: int, sizes: Array, first: int, out: Array) -> None:  # noqa: ARG001
        least = thresholds[place]
        # A difference of 0 has nothing to say.
        (np.greater_equal if least > 0 else np.greater)(sizes, least, out=out)

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

    def thin(place: int, sizes: Array, first: int, out: Array) -> None:
        # One generator a block: the same numbers however the blocks are divided among threads.
        key = np.random.SeedSequence([*seed, place, first // BLOCK])
        drawn = np.random.Generator(np.random.SFC64(key)).random(sizes.size)
        np.greater_equal(drawn, drop, out=out)
        np.logical_and(out, sizes > 0, out=out)

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
        thin: says which differences of a block stay; `None` for all that are not 0.
        consensus: `"mean"` over all members, their `"sum"`, or `"sign"`: for each number the mean
            of those that have the sign of the sum.
        scale: λ.
        out: where to write.

    Raises:
        FusionError: when the arrays differ in shape or type, or the result is not finite.
    """
    *flat, origin = flat_views([*arrays, base])
    result = output_for(base, out)
    target = result.reshape(-1)

    def work(start: int, stop: int) -> None:
        bench = _Bench.of(len(flat), origin.dtype)
        for first, last in blocks(start, stop):
            at = bench.take([array[first:last] for array in flat], origin[first:last])
            at.thin(thin, first)
            if consensus == "sign":
                at.elect()
            merged = at.merged(consensus, scale)
            check_finite(merged)
            np.copyto(target[first:last], merged, casting="unsafe")

    over_spans(target.size, work)
    return result


@dataclass(frozen=True, eq=False)
class _Bench:
    """A block of all members, and room to work on it without asking for memory again.

    Args:
        parts: the members' numbers.
        ground: the base's.
        differences: of each member to the base.
        kept: which of them count.
        room: as narrow as the numbers.
        total: as wide as sums are.
        marks: two rows of booleans.
        count: how many count for each number.
    """

    parts: list[Array]
    ground: Array
    differences: Array
    kept: Array
    room: Array
    total: Array
    marks: Array
    count: Array

    @classmethod
    def of(cls, members: int, dtype: Any) -> _Bench:
        narrow, wide = compute_types(dtype)
        return cls(
            parts=[],
            ground=np.empty(0, narrow),
            differences=np.empty((members, BLOCK), narrow),
            kept=np.empty((members, BLOCK), np.bool_),
            room=np.empty(BLOCK, narrow),
            total=np.empty(BLOCK, wide),
            marks=np.empty((2, BLOCK), np.bool_),
            count=np.empty(BLOCK, np.uint16),
        )

    def take(self, parts: Sequence[Array], ground: Array) -> _Bench:
        size, narrow = ground.size, self.room.dtype
        return _Bench(
            [np.asarray(part, narrow) for part in parts],
            np.asarray(ground, narrow),
            self.differences[:, :size],
            self.kept[:, :size],
            self.room[:size],
            self.total[:size],
            self.marks[:, :size],
            self.count[:size],
        )

    def thin(self, thin: Thin | None, first: int) -> None:
        """Note the differences, and which stay."""
        for place, (part, row) in enumerate(zip(self.parts, self.differences, strict=True)):
            np.subtract(part, self.ground, out=row)
            np.abs(row, out=self.room)
            if thin is None:
                np.greater(self.room, 0, out=self.kept[place])
            else:
                thin(place, self.room, first, self.kept[place])

    def elect(self) -> None:
        """Of what stays, keep what has the sign of the sum."""
        self._sum(self.differences)
        positive, same = self.marks
        np.greater(self.total, 0, out=positive)
        np.not_equal(self.total, 0, out=same)
        np.logical_and(self.kept, same, out=self.kept)
        for row, kept in zip(self.differences, self.kept, strict=True):
            np.greater(row, 0, out=same)
            np.equal(same, positive, out=same)
            np.logical_and(kept, same, out=kept)

    def _sum(self, rows: Any) -> None:
        """Add up what is kept. What is not finite makes the sum so, kept or not."""
        np.multiply(rows[0], self.kept[0], out=self.total)
        for row, kept in zip(rows[1:], self.kept[1:], strict=True):
            np.multiply(row, kept, out=self.room)
            np.add(self.total, self.room, out=self.total)

    def merged(self, consensus: Consensus, scale: float) -> Array:
        """The numbers that count, and the base by what they leave of it."""
        self._sum(self.parts)
        self.count[...] = 0
        for kept in self.kept:
            np.add(self.count, kept, out=self.count)
        if consensus == "sign":
            share: Array = self.count > 0
            np.maximum(self.count, 1, out=self.count)
            np.divide(self.total, self.count, out=self.total)
        else:
            divisor = len(self.parts) if consensus == "mean" else 1
            np.divide(self.total, divisor, out=self.total)
            share = self.count.astype(self.total.dtype) / divisor
        if consensus == "sign" and scale == 1:
            np.multiply(self.ground, ~share, out=self.room)
            return np.add(self.total, self.room, out=self.total)
        np.multiply(self.total, scale, out=self.total)
        left = 1 - scale * share.astype(self.total.dtype)
        return np.add(self.total, left * self.ground, out=self.total)
