"""Which channels of an original's outputs an edited graph still has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from saikei.channels import BoolMask, ChannelMap

# For each operation by name: for each axis of its output, which indices are left; all if `None`.
Kept: TypeAlias = Mapping[str, tuple[BoolMask | None, ...]]


def kept_outputs(channel_map: ChannelMap, keep: BoolMask) -> Kept:
    """What a mask over channels leaves of the first output of every operation.

    Args:
        channel_map: A graph with its channels.
        keep: For each channel, whether it stays.
    """
    found: dict[str, tuple[BoolMask | None, ...]] = {}
    for call, flow in zip(channel_map.graph.calls, channel_map.flows, strict=True):
        labels = flow.outputs[0]
        found.setdefault(
            call.operation,
            tuple(None if vector is None else channel_map.kept(vector, keep) for vector in labels),
        )
    return found


def take_kept(array: NDArray[Any], masks: tuple[BoolMask | None, ...] | None) -> NDArray[Any]:
    """The part of an output that is left."""
    for axis, mask in enumerate(masks or ()):
        if mask is not None and not mask.all():
            array = np.compress(mask, array, axis=axis)
    return array


def both_kept(first: Kept, second: Kept) -> Kept:
    """What is left after two cuts, the second of which was made on what the first had left."""
    merged = dict(first)
    for name, masks in second.items():
        before = first.get(name)
        if before is None or len(before) != len(masks):
            merged[name] = masks
            continue
        merged[name] = tuple(map(_after, before, masks))
    return merged


def _after(first: BoolMask | None, second: BoolMask | None) -> BoolMask | None:
    if first is None or second is None:
        return second if first is None else first
    joined = first.copy()
    joined[first] = second
    return joined
