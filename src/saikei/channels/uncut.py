"""How much of a model makes no channel that can be cut, and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from saikei.channels.channel_map import ChannelMap
from saikei.graph import Operation
from saikei.rules.labels import labelled

_NATURAL = frozenset({"a model input", "a model output"})


@dataclass(frozen=True)
class Uncut:
    """The layers that make no channel that can be cut.

    Args:
        share: The share of all parameters that is in such layers, 0 to 1.
        reasons: Why, by layer; the layer with the most parameters first.
    """

    share: float
    reasons: Mapping[str, str]


def uncut_layers(channel_map: ChannelMap) -> Uncut:
    """The layers with weights that make no channel that can be cut.

    Layers that make the model's outputs are not among them: those always stay.

    Args:
        channel_map: The channels of the model.
    """
    sizes: dict[str, int] = {}
    reasons: dict[str, str] = {}
    seen: set[int] = set()
    for name, operation in channel_map.graph.operations.items():
        weights = [w for w in operation.weights.values() if w.key not in seen]
        seen.update(weight.key for weight in weights)
        sizes[name] = sum(int(np.prod(weight.shape)) for weight in weights)
        reason = _reason(channel_map, operation) if sizes[name] else None
        if reason is not None:
            reasons[name] = reason
    whole = sum(sizes[name] for name in reasons)
    order = sorted(reasons, key=lambda name: -sizes[name])
    return Uncut(whole / max(sum(sizes.values()), 1), {name: reasons[name] for name in order})


def _reason(channel_map: ChannelMap, operation: Operation) -> str | None:
    """Why no channel of a layer can be cut; `None` where one can, or they are outputs."""
    if operation.name in channel_map.unknown:
        return channel_map.unknown[operation.name]
    found: list[str] = []
    for weight in operation.weights.values():
        for axis, vector in labelled(channel_map.weights.get(weight.key, ())):
            if (weight.key, axis) not in channel_map.produced:
                continue
            for channel in np.unique(channel_map.channel_of[vector]):
                if int(channel) not in channel_map.reasons:
                    return None
                found.append(channel_map.reasons[int(channel)])
    others = [reason for reason in found if reason not in _NATURAL]
    if found and not others:
        return None
    return others[0] if others else "none of its weights has channels"
