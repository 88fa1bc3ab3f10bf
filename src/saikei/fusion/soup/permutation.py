"""Which channels of a network can be permuted without changing its function, and how.

Two channels can be exchanged when both occur equally often on every axis of every weight and of
every tensor: then the network computes the same from either.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from saikei.channels import ChannelMap
from saikei.fusion.soup.architecture import Tensors, WeightName
from saikei.rules import Labels
from saikei.rules.labels import Vector, labelled


@dataclass(frozen=True, eq=False)
class ChannelAxis:
    """An axis of a weight, and the channel at each index of it.

    Args:
        weight: The weight's layer and name.
        axis: The number of the axis.
        channels: The channel at each index, int `(size of the axis,)`.
    """

    weight: WeightName
    axis: int
    channels: Vector = field(repr=False)


@dataclass(frozen=True, eq=False)
class Symmetries:
    """The permutations of channels that leave the function of a network as it is.

    Args:
        orbits: Sets of channels that can be exchanged, ascending, in the order of the graph.
        axes: Every weight axis that has a channel of an orbit.
        count: How many channels the graph has.
    """

    orbits: tuple[Vector, ...]
    axes: tuple[ChannelAxis, ...]
    count: int

    @classmethod
    def of(cls, channel_map: ChannelMap) -> Symmetries:
        """Find them from the labels of a channel map; no model is run."""
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
        axes = tuple(c for c in _channel_axes(channel_map) if moving[c.channels].any())
        return cls(orbits, axes, channel_map.count)

    def identity(self) -> Vector:
        """The permutation that moves nothing: entry `c` is the channel whose content `c` gets."""
        return np.arange(self.count)

    def random(self, generator: np.random.Generator) -> Vector:
        """A random permutation within each orbit."""
        source = self.identity()
        for orbit in self.orbits:
            source[orbit] = generator.permutation(orbit)
        return source

    def apply(self, numbers: Tensors, source: Vector) -> Tensors:
        """The weights of the network whose channel `c` is what channel `source[c]` was."""
        moved = dict(numbers)
        for axis in self.axes:
            index = moved_index(axis.channels, source)
            if index is not None:
                moved[axis.weight] = np.take(moved[axis.weight], index, axis.axis)
        return moved


def moved_index(channels: Vector, source: Vector) -> Vector | None:
    """For each index of an axis the index whose content it gets; `None` when none moves.

    Where a channel occurs several times on an axis, its k-th index gets the content of the other
    channel's k-th index.

    Args:
        channels: The channel at each index.
        source: A permutation: entry `c` is the channel whose content channel `c` gets.
    """
    sources = source[channels]
    if np.array_equal(sources, channels):
        return None
    order = np.argsort(channels, kind="stable")
    found = np.empty_like(order)
    # Both orders go channel by channel, and within a channel from left to right.
    found[np.argsort(sources, kind="stable")] = order
    return found


def _signatures(channel_map: ChannelMap) -> dict[int, list[int]]:
    """For each channel the axes it occurs on and how often; channels in constants are left out."""
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
    """Labels of numbers that belong to the architecture and so are the same in all members."""
    return [
        labels
        for flow in channel_map.flows
        for part in (flow.constants, flow.settings)
        for labels in part.values()
    ]


def _channel_axes(channel_map: ChannelMap) -> list[ChannelAxis]:
    return [
        ChannelAxis((operation, name), axis, channels)
        for operation, name, _, axis, channels in channel_map.weight_axes()
    ]
