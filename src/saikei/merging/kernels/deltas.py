"""Merging differences to a base: which of them stay × how those of several members become one.

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
    Merger,
    compute_types,
    fill_blocks,
    flat_views,
)
from saikei.merging.kernels.threshold import magnitude_thresholds

Consensus = Literal["mean", "sum", "sign"]
# Gets a member's index, the magnitudes of its differences in a block, the first index of the block
# and an array of booleans, into which it writes which of the differences stay.
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
        arrays: One array for each member.
        base: The array of the model that all members were fine-tuned from.
        density: Share of each member's differences that is kept, above 0 and at most 1.
        scale: λ, factor of the merged difference.
        out: The array to write to; `None` for a new one.

    Raises:
        FusionError: When the arrays differ in shape or type, or a number is not finite.
    """
    *flat, origin = flat_views([*arrays, base])
    thresholds = magnitude_thresholds(flat, origin, density)

    def thin(member: int, sizes: Array, first: int, out: Array) -> None:  # noqa: ARG001
        least = thresholds[member]
        # A difference of 0 never counts.
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
        arrays: One array for each member.
        base: The array of the model that all members were fine-tuned from.
        drop: Probability, at least 0 and below 1.
        seed: Whole numbers that, with the member's index, seed the dropping.
        consensus: How the remaining differences are merged: `"mean"`, `"sum"`, or `"sign"` as in
            TIES.
        scale: λ, factor of the merged difference.
        rescale: Whether the remaining differences are multiplied.
        out: The array to write to; `None` for a new one.

    Raises:
        FusionError: When the arrays differ in shape or type, or the result is not finite.
    """

    def thin(member: int, sizes: Array, first: int, out: Array) -> None:
        # One generator a block: the same numbers however the blocks are divided among threads.
        key = np.random.SeedSequence([*seed, member, first // BLOCK])
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
        arrays: One array for each member.
        base: The array of the model that all members were fine-tuned from.
        thin: Decides which differences of a block stay; `None` for all that are not 0.
        consensus: `"mean"` over all members, their `"sum"`, or `"sign"`: for each number the mean
            of those that have the sign of the sum.
        scale: λ, factor of the merged difference.
        out: The array to write to; `None` for a new one.

    Raises:
        FusionError: When the arrays differ in shape or type, or the result is not finite.
    """
    *flat, origin = flat_views([*arrays, base])

    def worker() -> Merger:
        workspace = _Workspace.of(len(flat), origin.dtype)

        def merge(block: slice, target: Array) -> Array:
            part = workspace.take([array[block] for array in flat], origin[block])
            part.thin(thin, block.start)
            if consensus == "sign":
                part.elect()
            merged = part.merged(consensus, scale)
            np.copyto(target, merged, casting="unsafe")
            return merged

        return merge

    return fill_blocks(base, out, worker)


@dataclass(frozen=True, eq=False)
class _Workspace:
    """A block of all members, and memory to work on it that serves all blocks.

    Args:
        parts: The numbers of each member.
        base: The numbers of the base.
        differences: The differences of each member to the base, `(members, size)`.
        kept: Whether each difference counts, booleans `(members, size)`.
        scratch: Numbers of the type in which differences are compared, `(size,)`.
        total: Numbers of the type in which sums are computed, `(size,)`.
        marks: Booleans, `(2, size)`.
        count: How many members count for each number, `(size,)`.
    """

    parts: list[Array]
    base: Array
    differences: Array
    kept: Array
    scratch: Array
    total: Array
    marks: Array
    count: Array

    @classmethod
    def of(cls, members: int, dtype: Any) -> _Workspace:
        narrow, wide = compute_types(dtype)
        return cls(
            parts=[],
            base=np.empty(0, narrow),
            differences=np.empty((members, BLOCK), narrow),
            kept=np.empty((members, BLOCK), np.bool_),
            scratch=np.empty(BLOCK, narrow),
            total=np.empty(BLOCK, wide),
            marks=np.empty((2, BLOCK), np.bool_),
            count=np.empty(BLOCK, np.uint16),
        )

    def take(self, parts: Sequence[Array], base: Array) -> _Workspace:
        size, narrow = base.size, self.scratch.dtype
        return _Workspace(
            [np.asarray(part, narrow) for part in parts],
            np.asarray(base, narrow),
            self.differences[:, :size],
            self.kept[:, :size],
            self.scratch[:size],
            self.total[:size],
            self.marks[:, :size],
            self.count[:size],
        )

    def thin(self, thin: Thin | None, first: int) -> None:
        """Compute the differences, and which of them stay."""
        for member, (part, row) in enumerate(zip(self.parts, self.differences, strict=True)):
            np.subtract(part, self.base, out=row)
            np.abs(row, out=self.scratch)
            if thin is None:
                np.greater(self.scratch, 0, out=self.kept[member])
            else:
                thin(member, self.scratch, first, self.kept[member])

    def elect(self) -> None:
        """Of the differences that stay, keep those with the sign of their sum."""
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
        """Sum the kept numbers; numbers that are not finite make the sum so, kept or not."""
        np.multiply(rows[0], self.kept[0], out=self.total)
        for row, kept in zip(rows[1:], self.kept[1:], strict=True):
            np.multiply(row, kept, out=self.scratch)
            np.add(self.total, self.scratch, out=self.total)

    def merged(self, consensus: Consensus, scale: float) -> Array:
        """The sum of the numbers that count, and of the base with the share that they leave it."""
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
            np.multiply(self.base, ~share, out=self.scratch)
            return np.add(self.total, self.scratch, out=self.total)
        np.multiply(self.total, scale, out=self.total)
        left = 1 - scale * share.astype(self.total.dtype)
        return np.add(self.total, left * self.base, out=self.total)
