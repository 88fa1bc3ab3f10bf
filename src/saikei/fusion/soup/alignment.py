"""Weight matching: the order of channels in which one network is nearest to another.

Ainsworth et al., "Git Re-Basin: merging models modulo permutation symmetries", 2022. Each set of
channels that can change places is matched by a linear assignment, the others held, until no
assignment changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

from saikei.channels import map_channels
from saikei.errors import WorkError
from saikei.fusion.soup.architecture import Place, Tensors
from saikei.fusion.soup.permutation import Carrier, Symmetries, moved_index
from saikei.fusion.soup.scorer import Trial
from saikei.graph import Graph
from saikei.merging.kernels.blocks import Array
from saikei.rules.labels import Vector

# Sweeps over all sets of channels; it has always ended far earlier.
_SWEEPS = 100


@dataclass(frozen=True, eq=False)
class Alignment:
    """A network whose channels stand in the order of another's.

    Args:
        numbers: its weights, by place.
        source: for each channel which one it was before.
        moved: how many channels have another place.
        distance: Euclidean, to the other network, over the weights that carry channels.
    """

    numbers: Tensors
    source: Vector
    moved: int
    distance: float


def align(symmetries: Symmetries, target: Tensors, numbers: Tensors) -> Alignment:
    """Put the channels of a network in the order that is nearest to another network.

    It starts from the nearer of two orders: the one that there is, and one matched front to back
    by what does not depend on the order of channels that are not matched yet. Where a weight
    carries the same channels on two axes, as a recurrent kernel does, another start takes their
    order on the other axis as not known either, and the nearer end counts.

    Args:
        symmetries: of their architecture.
        target: the weights of the other network, by place.
        numbers: those of the network.
    """
    matcher = _Matcher(symmetries, _wide(symmetries, target), _wide(symmetries, numbers))
    source = max(map(matcher.descend, matcher.starts()), key=matcher.likeness)
    aligned = symmetries.apply(numbers, source)
    places = {carrier.place for carrier in symmetries.carriers}
    square = sum(
        float(np.square(aligned[p].astype(np.float64) - target[p].astype(np.float64)).sum())
        for p in places
    )
    moved = int(np.count_nonzero(source != symmetries.identity()))
    return Alignment(aligned, source, moved, float(np.sqrt(square)))


def _wide(symmetries: Symmetries, numbers: Tensors) -> Tensors:
    """The weights that carry channels, in float32 at least; what is not finite counts as 0."""
    places = {carrier.place for carrier in symmetries.carriers}
    wide = np.float64 if any(numbers[p].dtype == np.float64 for p in places) else np.float32
    return {place: np.nan_to_num(numbers[place].astype(wide)) for place in places}


class _Matcher:
    """Matches one network's channels to another's, orbit by orbit."""

    def __init__(self, symmetries: Symmetries, target: Tensors, numbers: Tensors) -> None:
        self._symmetries = symmetries
        self._target = target
        self._numbers = numbers
        self._on: dict[Place, list[Carrier]] = {}
        for carrier in symmetries.carriers:
            self._on.setdefault(carrier.place, []).append(carrier)
        self._of_orbit = [
            [c for c in symmetries.carriers if np.isin(orbit, c.channels).any()]
            for orbit in symmetries.orbits
        ]

    def starts(self) -> list[Vector]:
        """First guesses; one of them is exact where one network is a permutation of the other."""
        guesses = [self._symmetries.identity(), self._front_to_back(self_known=True)]
        starts = [max(guesses, key=self.likeness)]
        if self._meet_themselves():
            starts.append(self._front_to_back(self_known=False))
        return starts

    def _meet_themselves(self) -> bool:
        """Whether a weight carries the channels of one orbit on two axes."""
        return any(
            len({carrier.place for carrier in carriers}) < len(carriers)
            for carriers in self._of_orbit
        )

    def _front_to_back(self, self_known: bool) -> Vector:
        """An order matched orbit by orbit.

        Args:
            self_known: whether the order of the channels that are being matched counts as known
                where they meet themselves.
        """
        source = self._symmetries.identity()
        open_ = np.zeros(self._symmetries.count, dtype=bool)
        for orbit in self._symmetries.orbits:
            open_[orbit] = True
        for orbit, carriers in zip(self._symmetries.orbits, self._of_orbit, strict=True):
            if self_known:
                open_[orbit] = False
            gain = self._gain(orbit, carriers, source, open_)
            source[orbit] = _matched(orbit, orbit, gain)
            open_[orbit] = False
        return source

    def descend(self, start: Vector) -> Vector:
        """Match each orbit with the others held, until nothing gets better."""
        source, shut = start.copy(), np.zeros(self._symmetries.count, dtype=bool)
        for _ in range(_SWEEPS):
            changed = False
            for orbit, carriers in zip(self._symmetries.orbits, self._of_orbit, strict=True):
                gain = self._gain(orbit, carriers, source, shut)
                proposed = source.copy()
                proposed[orbit] = _matched(orbit, source[orbit], gain)
                if np.array_equal(proposed, source):
                    continue
                places = {carrier.place for carrier in carriers}
                before, after = (self.likeness(s, places) for s in (source, proposed))
                if after > before + 1e-9 * abs(before):
                    source, changed = proposed, True
            if not changed:
                break
        return source

    def likeness(self, source: Vector, places: Sequence[Place] | set[Place] = ()) -> float:
        """The inner product with the target, over some weights or all."""
        return sum(
            float(np.vdot(self._target[place], self._moved(place, source)))
            for place in places or self._on
        )

    def _moved(self, place: Place, source: Vector, but: Carrier | None = None) -> Array:
        array = self._numbers[place]
        for carrier in self._on[place]:
            index = None if carrier is but else moved_index(carrier.channels, source)
            if index is not None:
                array = np.take(array, index, carrier.axis)
        return array

    def _gain(
        self, orbit: Vector, carriers: Sequence[Carrier], source: Vector, open_: Array
    ) -> Array:
        """For each channel's place what each channel's content adds to the inner product.

        Axes of channels that are still open are sorted in both networks, so that their order does
        not matter.
        """
        gain = np.zeros((len(orbit), len(orbit)))
        for carrier in carriers:
            ours = self._target[carrier.place]
            theirs = self._moved(carrier.place, source, but=carrier)
            axes = [
                c.axis
                for c in self._on[carrier.place]
                if c is not carrier and open_[c.channels].any()
            ]
            rows = [
                _sorted(_rows(array, carrier, orbit), axes, carrier.axis)
                for array in (ours, theirs)
            ]
            gain += rows[0] @ rows[1].T
        return gain


def _rows(array: Array, carrier: Carrier, orbit: Vector) -> Array:
    """One entry on the first axis for each channel of the orbit, with its places behind it."""
    places = np.flatnonzero(np.isin(carrier.channels, orbit))
    order = places[np.argsort(carrier.channels[places], kind="stable")]
    taken = np.moveaxis(np.take(array, order, carrier.axis), carrier.axis, 0)
    return taken.reshape(len(orbit), len(order) // len(orbit), *taken.shape[1:])


def _sorted(rows: Array, axes: Sequence[int], own: int) -> Array:
    """Flat rows, sorted along the axes of the weight that may stand in any order."""
    # The weight's own axis became the first two.
    there = [axis + 2 if axis < own else axis + 1 for axis in axes]
    if there:
        rest = [axis for axis in range(rows.ndim) if axis not in there]
        rows = np.transpose(rows, (*rest, *there))
        rows = np.sort(rows.reshape(*rows.shape[: len(rest)], -1), axis=-1)
    return rows.reshape(len(rows), -1)


def _matched(orbit: Vector, current: Vector, gain: Array) -> Vector:
    """The best content for each place; the current one where no other is better."""
    places, contents = linear_sum_assignment(gain, maximize=True)
    now = np.searchsorted(orbit, current)
    best = float(gain[places, contents].sum())
    held = float(gain[np.arange(len(orbit)), now].sum())
    if best <= held + 1e-9 * abs(held):
        return current
    return np.asarray(orbit[contents])


@dataclass(frozen=True, eq=False)
class Aligned:
    """Members after alignment.

    Args:
        members: the weights of each.
        moved: for each how many of its channels have another place.
    """

    members: tuple[Tensors, ...]
    moved: tuple[int, ...]


def align_members(
    graph: Graph, members: Sequence[Tensors], base: Tensors | None, trial: Trial | None
) -> Aligned:
    """Put the channels of members in the order of the base, or else of the first member.

    Args:
        graph: of the first member.
        members: the weights of each.
        base: those of the base.
        trial: to check on data that no function changed; `None` without data.

    Raises:
        WorkError: when one did, which a wrong rule of a layer would bring about.
    """
    symmetries = Symmetries.of(map_channels(graph))
    target = members[0] if base is None else base
    found = []
    for numbers in members:
        one = None if numbers is target else align(symmetries, target, numbers)
        if one is not None and one.moved and trial is not None:
            _check(trial, numbers, one.numbers, max(1e-2, 8 * graph.rounding()))
        found.append(one)
    return Aligned(
        tuple(n if one is None else one.numbers for n, one in zip(members, found, strict=True)),
        tuple(0 if one is None else one.moved for one in found),
    )


def _check(trial: Trial, before: Tensors, after: Tensors, slack: float) -> None:
    if not np.allclose(trial.losses(before), trial.losses(after), rtol=slack, atol=slack):
        raise WorkError(
            "A network whose channels changed places computes something else, so a layer's rule "
            "is wrong: use align=False, and report the model."
        )
