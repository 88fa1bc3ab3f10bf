"""What each call of a graph costs on its own, whole or with some of its channels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from saikei.channels import BoolMask, ChannelGroup, ChannelMap
from saikei.costs.counting import call_macs
from saikei.rules.base import product
from saikei.rules.labels import labelled
from saikei.tensors import numpy_dtype

# What is the sum of what the calls cost, in the order of `CallCosts.of`.
ADDITIVE = ("macs", "params", "bytes")


class CallCosts:
    """MACs, parameters and bytes of single calls; those of shared weights count at the first call.

    Args:
        channel_map: A graph with its channels.
    """

    def __init__(self, channel_map: ChannelMap) -> None:
        self._map = channel_map
        self._counted = _first_calls(channel_map)

    def of(self, index: int, keep: BoolMask | None = None) -> NDArray[np.float64]:
        """The costs named in `ADDITIVE` of one call.

        Args:
            index: Position of the call in the graph's calls.
            keep: For each channel, whether it stays; `None` keeps all.
        """
        operation = self._map.graph.operations[self._map.graph.calls[index].operation]
        view = self._map.view(index, keep)
        params = size = 0
        for name in self._counted[index]:
            weight = operation.weights[name]
            count = product(weight.shape if operation.quantised else view.weights[name])
            params += count
            size += count * numpy_dtype(weight.dtype).itemsize
        macs = call_macs(self._map, index, keep) or 0
        return np.array([macs, params, size], dtype=np.float64)


def _first_calls(channel_map: ChannelMap) -> list[list[str]]:
    """For each call, the weights that no earlier call has."""
    seen: set[int] = set()
    counted = []
    for call in channel_map.graph.calls:
        weights = channel_map.graph.operations[call.operation].weights
        counted.append([name for name, weight in weights.items() if weight.key not in seen])
        seen.update(weight.key for weight in weights.values())
    return counted


def calls_of(channel_map: ChannelMap, groups: Sequence[ChannelGroup]) -> list[list[int]]:
    """For each group, the calls with weights whose cost depends on it."""
    group_of = np.full(channel_map.count, -1)
    for number, group in enumerate(groups):
        group_of[group.channels] = number
    calls: list[list[int]] = [[] for _ in groups]
    for index, call in enumerate(channel_map.graph.calls):
        operation = channel_map.graph.operations[call.operation]
        if not operation.weights:
            continue
        labels = [channel_map.weights.get(weight.key, ()) for weight in operation.weights.values()]
        labels += [channel_map.flows[ref.call].outputs[ref.output] for ref in call.inputs()]
        labels += list(channel_map.flows[index].outputs)
        vectors = [vector for axes in labels for _, vector in labelled(axes)]
        found = {int(n) for v in vectors for n in np.unique(group_of[channel_map.channel_of[v]])}
        for number in found - {-1}:
            calls[number].append(index)
    return calls
