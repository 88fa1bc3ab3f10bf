"""How much a model's loss grows when channels of one group are removed, without any training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saikei.calibration.layers import Layers
from saikei.calibration.run import Run
from saikei.calibration.samples import Samples
from saikei.channels import ChannelGroup, ChannelMap
from saikei.costs import call_macs
from saikei.edits.cut import cut
from saikei.errors import EditError
from saikei.graph import Graph
from saikei.importance import CRITERIA
from saikei.runs.explained import GroupPart

# Shares of a group's channels that are removed; of large models the middle one alone.
SHARES = (0.25, 0.5, 0.75)
# Rows that losses are measured on, and the multiply-accumulates that all of it may take.
ROWS, FEWEST, MACS = 512, 32, 2e11
# Share of the importance that the number of carrying channels is for.
_CARRIED = 0.9

Outputs = list[NDArray[Any]]


def rows_for(channel_map: ChannelMap) -> tuple[int, tuple[float, ...]]:
    """How many rows losses are measured on, and for which shares, so that it takes minutes."""
    macs = sum(call_macs(channel_map, index) or 0 for index in range(len(channel_map.graph.calls)))
    groups = max(1, sum(group.pinned is None for group in channel_map.groups))
    each = max(1, macs * groups)
    shares = SHARES if each * len(SHARES) * FEWEST <= MACS else SHARES[1:2]
    return int(np.clip(MACS / (each * len(shares)), FEWEST, ROWS)), shares


def sensitivities(
    channel_map: ChannelMap,
    samples: Samples,
    criterion: str,
    loss: Callable[[Outputs], float],
    shares: Sequence[float],
) -> tuple[GroupPart, ...]:
    """Remove shares of the channels of each group, and measure how much the loss grows.

    Args:
        channel_map: A graph with its channels.
        samples: The rows that the loss is measured on.
        criterion: The criterion of `saikei.importance` by which channels are ranked.
        loss: From the outputs for the rows to a number; less is better.
        shares: The shares of the channels that are removed.
    """
    scores = CRITERIA[criterion].score(channel_map, np.random.default_rng(0), samples)
    layers = Layers(channel_map.graph)

    def measured(graph: Graph) -> float:
        return loss(Run(graph, samples.inputs, graph.output_refs(), layers).outputs(0))

    whole = measured(channel_map.graph)
    return tuple(
        GroupPart(
            name=group.name,
            layers=group.layers,
            channels=group.size,
            carrying=_carrying(scores[group.channels]),
            curve=tuple(
                (share, measured(graph) - whole)
                for share in shares
                if (graph := _without(channel_map, group, scores, share)) is not None
            ),
            pinned=group.pinned,
        )
        for group in channel_map.groups
    )


def _without(
    channel_map: ChannelMap, group: ChannelGroup, scores: NDArray[np.float64], share: float
) -> Graph | None:
    """The graph without the least important channels; `None` if as many cannot be removed."""
    free = group.channels[group.free]
    count = round(share * len(free))
    if group.pinned is not None or not 0 < count < group.size:
        return None
    keep = np.ones(channel_map.count, dtype=bool)
    keep[free[np.argsort(scores[free], kind="stable")[:count]]] = False
    try:
        return cut(channel_map, keep)
    except EditError:
        return None


def _carrying(scores: NDArray[np.float64]) -> int:
    """How many of the highest scores sum to the share that counts as carried."""
    ordered = np.sort(np.maximum(scores, 0))[::-1]
    return int(np.searchsorted(ordered.cumsum(), _CARRIED * ordered.sum())) + 1
