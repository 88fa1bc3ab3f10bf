"""`DropChannels`: cut exactly the channels that are named."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from saikei.calibration.surviving_outputs import Kept, kept_outputs
from saikei.channels import BoolMask, ChannelMap, map_channels
from saikei.edits.base import Edit
from saikei.edits.compensate import cut_and_compensate, cut_and_fold
from saikei.errors import EditError
from saikei.graph import Graph
from saikei.graph.layer_names import check_layer_names


@dataclass(frozen=True)
class DropChannels(Edit):
    """Cut the named output channels of layers, and with them whatever is tied to them.

    Args:
        channels: For each layer by name, the indices of the output channels that go. Naming
            a channel in one of several tied layers is enough.
        compensate: Whether the layers that are left are refitted by least squares, with data, to
            their outputs before the edit; or, without data, the outputs of constant channels are
            added to the biases of the layers that read them.

    Example:
        >>> edit = DropChannels({"conv2d": (0, 3)})
        >>> DropChannels.from_dict(edit.to_dict()) == edit
        True
    """

    exact: ClassVar[bool] = False
    stage: ClassVar[int] = 1
    channels: Mapping[str, tuple[int, ...]]
    compensate: bool = True

    def apply(self, graph: Graph, data: Any = None) -> Graph:
        """The graph without the named channels."""
        channel_map = map_channels(graph)
        return cut_and_compensate(channel_map, self._mask(channel_map), data, self.compensate)

    def unfitted(self, graph: Graph, data: Any = None) -> tuple[Graph, Kept]:
        """The graph without the named channels, and what is left of the others' outputs."""
        return self.unfitted_cut(map_channels(graph))

    def unfitted_cut(self, channel_map: ChannelMap) -> tuple[Graph, Kept]:
        """The same for a graph whose channels are known already.

        Args:
            channel_map: The graph with its channels.
        """
        mask = self._mask(channel_map)
        return cut_and_fold(channel_map, mask), kept_outputs(channel_map, mask)

    def _mask(self, channel_map: ChannelMap) -> BoolMask:
        if not any(self.channels.values()):
            raise EditError("DropChannels names no channel, so it would change nothing.")
        graph = channel_map.graph
        blocks = {owner: (start, size) for start, size, owner in channel_map.blocks}
        for layer in self.channels:
            if layer in channel_map.unknown:
                raise EditError(f"DropChannels cannot: {channel_map.unknown[layer]}.")
        check_layer_names(self.channels, graph, "DropChannels", blocks)
        keep = np.ones(channel_map.count, dtype=bool)
        for layer, indices in self.channels.items():
            start, size = blocks[layer]
            for index in indices:
                if not 0 <= index < size:
                    raise EditError(
                        f"Layer '{layer}' has channels 0 to {size - 1}, so channel {index} "
                        "cannot be dropped."
                    )
                keep[channel_map.channel_of[start + index]] = False
        return keep


def dropped(channel_map: ChannelMap, keep: BoolMask, compensate: bool = True) -> DropChannels:
    """A mask over channels as the edit that cuts them: what each layer loses."""
    channels: dict[str, tuple[int, ...]] = {}
    for start, size, owner in channel_map.blocks:
        gone = np.flatnonzero(~keep[channel_map.channel_of[start : start + size]])
        if len(gone):
            channels[owner] = tuple(int(index) for index in gone)
    return DropChannels(channels, compensate)
