"""Which channels of a network can change places without a change of its function, and how.

A channel can take the place of another when both stand equally often on every axis of every
weight and of every tensor: then the network does the same to either.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from saikei.channels import ChannelMap
from saikei.fusion.soup.architecture import Place, Tensors
from saikei.rules import Labels
from saikei.rules.labels import Vector, labelled


@dataclass(frozen=True, eq=False)
class Carrier:
    """An axis of a weight with the channels on it.

    Args:
        place: of the weight.
        axis: of it.
        channels: for each index its channel.
    """

    place: Place
    axis: int
    channels: Vector = field(repr=False)


@dataclass(frozen=True, eq=False)
class Symmetries:
    """The permutations of channels that leave the function of a network as it is.

    Args:
        orbits: channels that can take each other's places, ascending, in the order of the graph.
        carriers: every weight axis on which a channel of an orbit stands.
        count: how many channels the graph has.
    """

    orbits: tuple[Vector, ...]
    carriers: tuple[Carrier, ...]
    count: int

    @classmethod
    def of(cls, channel_map: ChannelMap) -> Symmetries:
        """Find them from the labels; no model is run."""
        signatures = _signatures(channel_map)
        alike: dict[tuple[int, ...], list[int]] = {}
        for group in channel_map.groups:
            for channel in group.channels[group.free]:
                if int(channel) in signatures:
                    alike.setdefault(tuple(signatures[int(channel)]), []).append(int(channel))
        orbits = tuple(np.array(sorted(set(one))) for one in alike.values() if len(set(one)) > 1)
        moving = np.zeros(channel_map.count, dtype=bool)
        for orbit in orbits:
            moving[orbit] = True
        carriers = tuple(c for c in _carriers(channel_map) if moving[c.channels].any())
        return cls(orbits, carriers, channel_map.count)

    def identity(self) -> Vector:
        """The permutation that moves nothing: for each channel, whose content it gets."""
        return np.arange(self.count)

    def random(self, generator: np.random.Generator) -> Vector:
        """Any permutation."""
        source = self.identity()
        for orbit in self.orbits:
            source[orbit] = generator.permutation(orbit)
        return source

    def apply(self, numbers: Tensors, source: Vector) -> Tensors:
        """The weights of the network whose channel `c` is what channel `source[c]` was.

        Args:
            numbers: by place; they are not changed.
            source: a permutation.
        """
        moved = dict(numbers)
        for carrier in self.carriers:
            index = moved_index(carrier.channels, source)
            if index is not None:
                moved[carrier.place] = np.take(moved[carrier.place], index, carrier.axis)
        return moved


def moved_index(channels: Vector, source: Vector) -> Vector | None:
    """For each index of an axis the one whose content it gets; `None` when none moves.

    Where a channel stands several times on an axis, its k-th place gets the k-th of the other's.

    Args:
        channels: for each index its channel.
        source: a permutation.
    """
    wanted = source[channels]
    if np.array_equal(wanted, channels):
        return None
    order = np.argsort(channels, kind="stable")
    found = np.empty_like(order)
    # Both orders go channel by channel, and within a channel from left to right.
    found[np.argsort(wanted, kind="stable")] = order
    return found


def _signatures(channel_map: ChannelMap) -> dict[int, list[int]]:
    """For each channel on which axes it stands and how often; those in constants are left out."""
    signatures: dict[int, list[int]] = {}
    for number, vector in enumerate(_vectors(channel_map)):
        channels, counts = np.unique(channel_map.channel_of[vector], return_counts=True)
        for channel, count in zip(channels.tolist(), counts.tolist(), strict=True):
            signatures.setdefault(channel, []).extend((number, count))
    for labels in _fixed(channel_map):
        for _, vector in labelled(labels):
            for channel in np.unique(channel_map.channel_of[vector]).tolist():
                signatures.pop(channel, None)
    return signatures


def _vectors(channel_map: ChannelMap) -> list[Vector]:
    weights = [vector for labels in channel_map.weights.values() for _, vector in labelled(labels)]
    outputs = [
        vector
        for flow in channel_map.flows
        for labels in flow.outputs
        for _, vector in labelled(labels)
    ]
    return weights + outputs


def _fixed(channel_map: ChannelMap) -> list[Labels]:
    """Labels of numbers that are part of the architecture: members have the same ones."""
    return [
        labels
        for flow in channel_map.flows
        for part in (flow.constants, flow.settings)
        for labels in _values(part)
    ]


def _values(part: Mapping[int, Labels] | Mapping[str, Labels]) -> list[Labels]:
    return list(part.values())


def _carriers(channel_map: ChannelMap) -> list[Carrier]:
    return [
        Carrier((operation, name), axis, channels)
        for operation, name, _, axis, channels in channel_map.weight_axes()
    ]
