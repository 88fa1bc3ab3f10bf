"""Where a group's channels are read: in which tensors, and by which weights."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saikei.calibration.affordable import affordable
from saikei.calibration.parts import Parts
from saikei.calibration.samples import Samples
from saikei.channels import ChannelGroup, ChannelMap
from saikei.graph import TensorRef
from saikei.rules.labels import Vector, labelled


@dataclass(frozen=True)
class ReadAxis:
    """One axis of one tensor that carries channels to a call that reads them.

    Args:
        call: The call's number.
        ref: The tensor that is read.
        axis: The axis of the tensor that has the channels.
        channels: For each index of the axis, its channel's number.
        weights: `(variable key, operation, weight, axis)` of the weights that are multiplied
            with it; none where the tensor is what a layer makes and no weights read it.
    """

    call: int
    ref: TensorRef
    axis: int
    channels: Vector
    weights: tuple[tuple[int, str, str, int], ...]


def read_axes(channel_map: ChannelMap) -> Iterator[ReadAxis]:
    """The tensors that weights read channels from; for channels that none reads, where made."""
    read = np.zeros(channel_map.count, dtype=bool)
    found = []
    for index in range(len(channel_map.graph.calls)):
        for carrier in _read_by(channel_map, index):
            read[carrier.channels] = True
            found.append(carrier)
    yield from found
    for index, flow in enumerate(channel_map.flows):
        name = channel_map.graph.calls[index].operation
        if not channel_map.graph.operations[name].weights:
            continue
        for axis, vector in labelled(flow.outputs[0] if flow.outputs else ()):
            channels = channel_map.channel_of[vector]
            if not read[channels].any():
                yield ReadAxis(index, TensorRef(index, 0), axis, channels, ())


@dataclass(frozen=True)
class Reading:
    """A tensor along an axis that carries channels, and all that read it so.

    Args:
        axes: One for each call that reads it.
        parts: Arrays of the tensor for a part of the samples each, with the share of the samples.
    """

    axes: tuple[ReadAxis, ...]
    parts: Iterator[tuple[float, NDArray[Any]]]


def read_arrays(channel_map: ChannelMap, samples: Samples) -> Iterator[Reading]:
    """Run a graph, and give each tensor that carries channels to a reader, in parts.

    The parts of one are to be used up before the next one is taken.
    """
    of_tensor: dict[tuple[TensorRef, int], list[ReadAxis]] = defaultdict(list)
    for carrier in read_axes(channel_map):
        of_tensor[carrier.ref, carrier.axis].append(carrier)
    found = sorted(of_tensor.values(), key=lambda axes: axes[0].call)
    stops = sorted({axes[0].call for axes in found})
    # What one call reads and gives, and what later ones still read.
    until = max(stops, default=-1) + 1
    inputs = affordable(channel_map.graph, samples.inputs, tensors=4, until=until)
    run = Parts(channel_map.graph, inputs, stops)
    for axes in found:
        yield Reading(tuple(axes), _parts(run, axes[0]))


def _parts(run: Parts, carrier: ReadAxis) -> Iterator[tuple[float, NDArray[Any]]]:
    for rows, part in run.before(carrier.call):
        share = (rows.stop - rows.start) / run.samples
        if carrier.weights:
            yield share, part.value(carrier.ref).array
        else:
            yield share, part.ahead(carrier.call).after[carrier.ref.output].array


def _read_by(channel_map: ChannelMap, index: int) -> Iterator[ReadAxis]:
    call = channel_map.graph.calls[index]
    operation = channel_map.graph.operations[call.operation]
    for ref in dict.fromkeys(call.inputs()):
        for axis, vector in labelled(channel_map.flows[ref.call].outputs[ref.output]):
            channels = channel_map.channel_of[vector]
            readers = tuple(
                (weight.key, operation.name, name, position)
                for name, weight in operation.weights.items()
                for position, own in labelled(channel_map.weights.get(weight.key, ()))
                if (weight.key, position) not in channel_map.produced
                and np.array_equal(channel_map.channel_of[own], channels)
            )
            if readers:
                yield ReadAxis(index, ref, axis, channels, readers)


def in_channels(
    array: NDArray[Any], axis: int, channels: Vector, group: ChannelGroup
) -> NDArray[Any]:
    """An array as `(rows, channels of the group)`; what repeats a channel makes more rows.

    Args:
        array: A tensor or a weight.
        axis: The axis that carries channels.
        channels: For each index of the axis, its channel's number.
        group: Whose channels to take, in its order. Where the axis carries one less often than
            another, its missing rows are 0.
    """
    flat = np.moveaxis(array, axis, -1).reshape(-1, array.shape[axis])
    order = np.argsort(group.channels, kind="stable")
    index = np.searchsorted(group.channels[order], channels).clip(max=group.size - 1)
    column = order[index]
    own = np.flatnonzero(group.channels[column] == channels)
    column = column[own]
    turn = _occurrences(column)
    if turn.max(initial=0) == 0 and len(own) == group.size == array.shape[axis]:
        return flat[:, own[np.argsort(column, kind="stable")]]
    rows = np.zeros((turn.max(initial=0) + 1, len(flat), group.size), dtype=flat.dtype)
    rows[turn, :, column] = flat[:, own].T
    return rows.reshape(-1, group.size)


def _occurrences(values: Vector) -> Vector:
    """For each entry, the number of equal ones before it."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]]) if len(values) else order
    counts = np.diff(np.r_[starts, len(values)])
    turn = np.empty(len(values), dtype=np.int64)
    turn[order] = np.arange(len(values)) - np.repeat(starts, counts)
    return turn
