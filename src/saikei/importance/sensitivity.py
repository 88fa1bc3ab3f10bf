"""Gradients of the loss by the weights that read each channel.

A channel is read by weights; multiplying those by a gate z leaves the model as it is at z = 1 and
without the channel at z = 0. The gate's derivative is Σ w ∂L/∂w over the weights that read the
channel, which is Σ a ∂L/∂a over the activations that they read.
"""

from __future__ import annotations

from collections.abc import Iterator

import keras
import numpy as np
from keras import tree
from numpy.typing import NDArray

from saikei.calibration.samples import Samples
from saikei.channels import ChannelMap
from saikei.graph import build, layers_of
from saikei.graph.lineage import ignored_number
from saikei.importance.gradients import weight_gradients
from saikei.importance.objective import objective
from saikei.importance.per_channel import along, weight_axes
from saikei.tensors import to_floats

# Gradients of a few samples at a time: their squares would average out in a large batch.
BATCH = 8

Numbers = NDArray[np.float64]
# Weights that meet a channel, and their gradients, both `(others, size of the axis)`.
Met = tuple[NDArray[np.int64], NDArray[np.floating], NDArray[np.floating]]


def batches(channel_map: ChannelMap, samples: Samples) -> Iterator[list[Met]]:
    """For each small batch, the weights that read channels with the loss's gradients by them.

    For channels that no weights read, those that make them.

    Args:
        channel_map: a graph with its channels.
        samples: with labels.

    Raises:
        EditError: when the labels do not fit the outputs.
    """
    model = build(channel_map.graph)
    first = tree.map_structure(lambda a: a[: 4 * BATCH], samples.with_labels())
    outputs = [to_floats(o) for o in tree.flatten(model(first[0], training=False))]
    gradients_of = weight_gradients(
        model, objective(outputs, first[1], ignored_number(channel_map.graph.marks))
    )
    place = _places(channel_map, model)
    axes = _axes(channel_map)
    for start in range(0, len(samples) - len(samples) % BATCH or len(samples), BATCH):
        x, y = tree.map_structure(lambda a, at=start: a[at : at + BATCH], samples.with_labels())
        found = gradients_of(x, tree.flatten(y))
        yield [
            (channels, along(weight, axis), along(found[place[key]], axis))
            for key, weight, axis, channels in axes
        ]


def _axes(
    channel_map: ChannelMap,
) -> list[tuple[tuple[str, str], NDArray[np.floating], int, NDArray[np.int64]]]:
    """The weights that read channels; for channels that none reads, those that make them."""
    readers = list(weight_axes(channel_map, produced=False))
    read = np.zeros(channel_map.count, dtype=bool)
    for _, _, _, _, channels in readers:
        read[channels] = True
    makers = [axis for axis in weight_axes(channel_map, produced=True) if not read[axis[4]].any()]
    return [
        ((operation, name), weight.numpy(), axis, channels)
        for operation, name, weight, axis, channels in (*readers, *makers)
    ]


def _places(channel_map: ChannelMap, model: keras.Model) -> dict[tuple[str, str], int]:
    """Where in `model.weights` each weight of the graph stands."""
    position = {id(weight): i for i, weight in enumerate(model.weights)}
    layers = layers_of(channel_map.graph, model)
    return {
        (name, weight): position[id(variable)]
        for name, operation in channel_map.graph.operations.items()
        if operation.weights
        for weight, variable in zip(operation.weights, layers[name].weights, strict=True)
    }
