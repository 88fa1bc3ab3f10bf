"""Channel groups: the layers whose channels are tied, as values and as a table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from saikei.columns import Columns, InColumns
from saikei.rules.labels import Vector


@dataclass(frozen=True)
class Member:
    """One axis of one weight that carries a group's channels.

    Args:
        operation: The layer's name.
        weight: The weight's name in the layer.
        axis: The axis of the weight that the channels are on.
        channels: For each index of the axis, its channel's number.
        produces: Whether the layer makes these channels (a kernel's output axis, a bias, a
            scale) rather than reads them.
    """

    operation: str
    weight: str
    axis: int
    channels: Vector = field(repr=False)
    produces: bool


@dataclass(frozen=True)
class ChannelGroup:
    """Channels that layers share.

    Args:
        name: The layer that makes the channels first.
        channels: The numbers of the channels, in that layer's order.
        blocks: The channels that each layer makes, by its name; at least one channel of each
            block has to stay.
        members: The weight axes that carry the channels.
        pinned: Why none of the channels can be cut; `None` where some can.
        free: For each channel, whether it can be cut.
        pairs: The weight axes of which at least two indices have to stay: the name of the weight,
            and the channel of each index.
    """

    name: str
    channels: Vector = field(repr=False)
    blocks: Mapping[str, Vector] = field(repr=False)
    members: tuple[Member, ...] = field(repr=False)
    pinned: str | None
    free: NDArray[np.bool_] = field(repr=False)
    pairs: tuple[tuple[str, Vector], ...] = field(default=(), repr=False)

    def needs(self) -> Iterator[tuple[str, Vector, int]]:
        """What has to stay: the owner, its channels (with repeats), and how many of them."""
        yield from ((name, channels, 1) for name, channels in self.blocks.items())
        yield from ((name, channels, 2) for name, channels in self.pairs)

    @property
    def size(self) -> int:
        """How many channels the group has."""
        return len(self.channels)

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers that carry the channels, in the order of the graph."""
        return tuple(dict.fromkeys(member.operation for member in self.members))

    @property
    def layers_made(self) -> tuple[str, ...]:
        """The layers that make some of the channels."""
        return tuple(dict.fromkeys(m.operation for m in self.members if m.produces))


class ChannelGroups(InColumns, tuple[ChannelGroup, ...]):
    """The channel groups of a model; printed, they are a table."""

    __slots__ = ()

    def _shown(self) -> tuple[Columns]:
        rows = [("group", "channels", "can be cut", "layers")]
        for group in self:
            free = "no" if group.pinned else f"{int(group.free.sum())}"
            layers = ", ".join(group.layers)
            rows.append((group.name, str(group.size), free, layers + _because(group.pinned)))
        return (Columns(rows),)


def _because(reason: str | None) -> str:
    return "" if reason is None else f" [pinned: {reason}]"
