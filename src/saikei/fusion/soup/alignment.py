"""Weight matching: the order of channels in which one network is nearest to another.

Ainsworth et al., "Git Re-Basin: merging models modulo permutation symmetries", 2022. Each set of
exchangeable channels is matched by a linear assignment while the others stay fixed, until no
assignment changes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

from saikei.channels import map_channels
from saikei.errors import WorkError
from saikei.fusion.soup.architecture import Tensors, WeightName
from saikei.fusion.soup.permutation import ChannelAxis, Symmetries, moved_index
from saikei.fusion.soup.scorer import WeightScorer
from saikei.graph import Graph
from saikei.merging.kernels.blocks import Array
from saikei.rules.labels import Vector

# Sweeps over all sets of channels; it has always ended far earlier.
_SWEEPS = 100


@dataclass(frozen=True, eq=False)
class Alignment:
    """A network with its channels in the order of another's.

    Args:
        numbers: Its weights, by name.
        source: For each channel the channel that it was before.
        moved: How many channels changed their index.
        distance: Euclidean distance to the other network, over the weights that have channels.
    """

    numbers: Tensors
    source: Vector
    moved: int
    distance: float


def align(symmetries: Symmetries, target: Tensors, numbers: Tensors) -> Alignment:
    """Put the channels of a network in the order that is nearest to another network.

    It starts from the nearer of two orders: the present one, and one matched front to back by what
    does not depend on the order of channels that are not matched yet. Where a weight has the same
    channels on two axes, as a recurrent kernel does, a second start treats their order on the
    other axis as unknown too, and the nearer of both results is taken.
    """
    matcher = _Matcher(symmetries, _wide(symmetries, target), _wide(symmetries, numbers))
    source = max(map(matcher.descend, matcher.starts()), key=matcher.likeness)
    aligned = symmetries.apply(numbers, source)
    square = sum(
        float(np.square(aligned[key].astype(np.float64) - target[key].astype(np.float64)).sum())
        for key in {axis.weight for axis in symmetries.axes}
    )
    moved = int(np.count_nonzero(source != symmetries.identity()))
    return Alignment(aligned, source, moved, float(np.sqrt(square)))


def _wide(symmetries: Symmetries, numbers: Tensors) -> Tensors:
    """The weights that have channels, in float32 at least; what is not finite counts as 0."""
    keys = {axis.weight for axis in symmetries.axes}
    wide = np.float64 if any(numbers[key].dtype == np.float64 for key in keys) else np.float32
    return {key: np.nan_to_num(numbers[key].astype(wide)) for key in keys}


class _Matcher:
    """Matches one network's channels to another's, orbit by orbit."""

    def __init__(self, symmetries: Symmetries, target: Tensors, numbers: Tensors) -> None:
        self._symmetries = symmetries
        self._target = target
        self._numbers = numbers
        self._on: dict[WeightName, list[ChannelAxis]] = {}
        for axis in symmetries.axes:
            self._on.setdefault(axis.weight, []).append(axis)
        self._of_orbit = [
            [c for c in symmetries.axes if np.isin(orbit, c.channels).any()]
            for orbit in symmetries.orbits
        ]

    def starts(self) -> list[Vector]:
        """Orders to start from; one is exact where one network is a permutation of the other."""
        guesses = [self._symmetries.identity(), self._front_to_back(self_known=True)]
        starts = [max(guesses, key=self.likeness)]
        if self._is_recurrent():
            starts.append(self._front_to_back(self_known=False))
        return starts

    def _is_recurrent(self) -> bool:
        """Whether a weight has the channels of one orbit on two axes."""
        return any(len({axis.weight for axis in axes}) < len(axes) for axes in self._of_orbit)

    def _front_to_back(self, self_known: bool) -> Vector:
        """An order matched orbit by orbit.

        Args:
            self_known: Whether the order of the channels that are being matched counts as known
                on the other axis of a weight that has them on two axes.
        """
        source = self._symmetries.identity()
        open_ = np.zeros(self._symmetries.count, dtype=bool)
        for orbit in self._symmetries.orbits:
            open_[orbit] = True
        for orbit, axes in zip(self._symmetries.orbits, self._of_orbit, strict=True):
            if self_known:
                open_[orbit] = False
            gain = self._gain(orbit, axes, source, open_)
            source[orbit] = _matched(orbit, orbit, gain)
            open_[orbit] = False
        return source

    def descend(self, start: Vector) -> Vector:
        """Match each orbit while the others stay fixed, until nothing improves."""
        source, shut = start.copy(), np.zeros(self._symmetries.count, dtype=bool)
        for _ in range(_SWEEPS):
            changed = False
            for orbit, axes in zip(self._symmetries.orbits, self._of_orbit, strict=True):
                gain = self._gain(orbit, axes, source, shut)
                proposed = source.copy()
                proposed[orbit] = _matched(orbit, source[orbit], gain)
                if np.array_equal(proposed, source):
                    continue
                keys = {axis.weight for axis in axes}
                before, after = (self.likeness(s, keys) for s in (source, proposed))
                if after > before + 1e-9 * abs(before):
                    source, changed = proposed, True
            if not changed:
                break
        return source

    def likeness(self, source: Vector, keys: Iterable[WeightName] = ()) -> float:
        """The inner product with the target, over some weights; over all if none are named."""
        products = [
            float(np.vdot(self._target[key], self._moved(key, source)))
            for key in list(keys) or self._on
        ]
        return sum(products)

    def _moved(self, key: WeightName, source: Vector, but: ChannelAxis | None = None) -> Array:
        array = self._numbers[key]
        for axis in self._on[key]:
            index = None if axis is but else moved_index(axis.channels, source)
            if index is not None:
                array = np.take(array, index, axis.axis)
        return array

    def _gain(
        self, orbit: Vector, axes: Sequence[ChannelAxis], source: Vector, open_: Array
    ) -> Array:
        """Row by row the inner product that each channel's content would add at one index.

        Axes of channels that are not matched yet are sorted in both networks, so that their order
        does not matter.
        """
        gain = np.zeros((len(orbit), len(orbit)))
        for axis in axes:
            ours = self._target[axis.weight]
            theirs = self._moved(axis.weight, source, but=axis)
            unordered = [
                c.axis for c in self._on[axis.weight] if c is not axis and open_[c.channels].any()
            ]
            rows = [
                _sorted(_rows(array, axis, orbit), unordered, axis.axis) for array in (ours, theirs)
            ]
            gain += rows[0] @ rows[1].T
        return gain


def _rows(array: Array, axis: ChannelAxis, orbit: Vector) -> Array:
    """One entry on the first axis for each channel of the orbit, and its indices on the second."""
    indices = np.flatnonzero(np.isin(axis.channels, orbit))
    order = indices[np.argsort(axis.channels[indices], kind="stable")]
    taken = np.moveaxis(np.take(array, order, axis.axis), axis.axis, 0)
    return taken.reshape(len(orbit), len(order) // len(orbit), *taken.shape[1:])


def _sorted(rows: Array, axes: Sequence[int], own: int) -> Array:
    """Flat rows, sorted along the axes of the weight whose order does not matter."""
    # The weight's own axis became the first two.
    there = [axis + 2 if axis < own else axis + 1 for axis in axes]
    if there:
        rest = [axis for axis in range(rows.ndim) if axis not in there]
        rows = np.transpose(rows, (*rest, *there))
        rows = np.sort(rows.reshape(*rows.shape[: len(rest)], -1), axis=-1)
    return rows.reshape(len(rows), -1)


def _matched(orbit: Vector, current: Vector, gain: Array) -> Vector:
    """The best content for each channel; the current content where no other is better."""
    indices, contents = linear_sum_assignment(gain, maximize=True)
    now = np.searchsorted(orbit, current)
    best = float(gain[indices, contents].sum())
    held = float(gain[np.arange(len(orbit)), now].sum())
    if best <= held + 1e-9 * abs(held):
        return current
    return np.asarray(orbit[contents])


@dataclass(frozen=True, eq=False)
class AlignedMembers:
    """Members after alignment.

    Args:
        members: The weights of each member.
        moved: For each member how many of its channels changed their index.
    """

    members: tuple[Tensors, ...]
    moved: tuple[int, ...]


def align_members(
    graph: Graph, members: Sequence[Tensors], base: Tensors | None, scorer: WeightScorer | None
) -> AlignedMembers:
    """Put the channels of members in the order of the base, or else of the first member.

    Args:
        graph: The graph of the first member.
        members: The weights of each member.
        base: The weights of the base; `None` without one.
        scorer: Checks on data that no member's function changed; `None` without data.

    Raises:
        WorkError: When a member's function changed, which would be due to a wrong layer rule.
    """
    symmetries = Symmetries.of(map_channels(graph))
    target = members[0] if base is None else base
    found = []
    for numbers in members:
        one = None if numbers is target else align(symmetries, target, numbers)
        if one is not None and one.moved and scorer is not None:
            _check(scorer, numbers, one.numbers, max(1e-2, 8 * graph.rounding()))
        found.append(one)
    return AlignedMembers(
        tuple(n if one is None else one.numbers for n, one in zip(members, found, strict=True)),
        tuple(0 if one is None else one.moved for one in found),
    )


def _check(scorer: WeightScorer, before: Tensors, after: Tensors, slack: float) -> None:
    if not np.allclose(scorer.losses(before), scorer.losses(after), rtol=slack, atol=slack):
        raise WorkError(
            "A network with permuted channels computes something else, so the rule of a layer is "
            "wrong: use Soup(align=False), and report the model."
        )
