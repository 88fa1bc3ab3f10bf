"""The inputs that a kernel reads: per axis, tap i of output o reads o·stride − left + i·dilation.

A kernel of another size computes at the same positions when its taps read where old ones read, so
that what it leaves out or adds is whole taps, and the outputs are as many.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Axis:
    """One spatial axis of a convolution.

    Args:
        kernel: Number of taps.
        stride: Step between outputs.
        dilation: Step between taps.
        padding: `"valid"`, `"same"` or `"causal"`.
        sizes: The size of the input along the axis in each call; `None` where it is not known.
    """

    kernel: int
    stride: int
    dilation: int
    padding: str
    sizes: tuple[int | None, ...]

    def pads(self) -> tuple[int, int]:
        """How much is padded before and after.

        Raises:
            ValueError: When that depends on a size that is not known, or differs by call.
        """
        found = set(self._pads(self.kernel))
        if len(found) > 1:
            raise ValueError(
                f"where padding 'same' with stride {self.stride} starts depends on the input size, "
                "which is not known or not the same in all calls: give the model a fixed input size"
            )
        return found.pop()

    def kept_padding(self, kernel: int) -> int | None:
        """How many old taps are before the first new one if the padding stays as it is.

        Returns:
            The number, below 0 where new taps come first; `None` where taps would be between
            old ones, or a smaller kernel would not be the middle of the old one.
        """
        if self.padding == "causal":
            return self.kernel - kernel
        if self.padding == "valid":
            return 0 if kernel == self.kernel else None
        pairs = zip(self._pads(self.kernel), self._pads(kernel), strict=True)
        shifts = {old[0] - new[0] for old, new in pairs}
        shift = shifts.pop()
        if shifts or shift % self.dilation:
            return None
        offset, spare = shift // self.dilation, self.kernel - kernel
        # A larger kernel is padded by as much more, so it covers all old taps in any case.
        if spare > 0 and offset not in (spare // 2, spare - spare // 2):
            return None
        return offset

    def _pads(self, kernel: int) -> list[tuple[int, int]]:
        span = self.dilation * (kernel - 1)
        if self.padding == "valid":
            return [(0, 0)] * len(self.sizes)
        if self.padding == "causal":
            return [(span, 0)] * len(self.sizes)
        found: list[tuple[int, int]] = []
        for size in self.sizes:
            # What the last output leaves of the input decides: 1 to `stride` entries of it.
            rests = range(1, self.stride + 1)
            if size is not None:
                rests = range((size - 1) % self.stride + 1, (size - 1) % self.stride + 2)
            totals = [max(span + 1 - rest, 0) for rest in rests]
            found.extend((total // 2, total - total // 2) for total in totals)
        return found


@dataclass(frozen=True)
class Placement:
    """The position of a new kernel relative to the old one.

    Args:
        offsets: For each axis, how many old taps are before the first new one; below 0 where
            new ones come first.
        pads: For each axis, what the input is padded with before and after (cropped where it is
            below 0), for a convolution without padding; `None` where the padding stays.
    """

    offsets: tuple[int, ...]
    pads: tuple[tuple[int, int], ...] | None


def place(axes: Sequence[Axis], kernel: Sequence[int]) -> Placement:
    """Lay a kernel of another size over the middle of the old one.

    Raises:
        ValueError: When an input size would have to be known.
    """
    kept = [axis.kept_padding(size) for axis, size in zip(axes, kernel, strict=True)]
    known = tuple(offset for offset in kept if offset is not None)
    if len(known) == len(kept):
        return Placement(known, None)
    offsets, pads = [], []
    for axis, size in zip(axes, kernel, strict=True):
        spare = axis.kernel - size
        offset = spare // 2
        before, after = axis.pads()
        offsets.append(offset)
        step = axis.dilation
        pads.append((before - offset * step, after - (spare - offset) * step))
    return Placement(tuple(offsets), tuple(pads))
