"""Criteria that look at the loss: its gradients by the weights that read each channel.

A channel is read by weights; multiplying those by a gate z leaves the model as it is at z = 1 and
without the channel at z = 0. The gate's derivative is Σ w ∂L/∂w over the weights that read the
channel, which is Σ a ∂L/∂a over the activations that they read.

- Taylor: Molchanov et al., "Importance Estimation for Neural Network Pruning", 2019.
- Hessian: LeCun et al., "Optimal Brain Damage", 1990; Theis et al., "Faster gaze prediction with
  dense networks and Fisher pruning", 2018.
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
from saikei.importance.gradients import weight_gradients
from saikei.importance.objective import objective
from saikei.importance.per_channel import along, relative_to_group, weight_axes
from saikei.tensors import to_floats

# Gradients of a few samples at a time: their squares would average out in a large batch.
BATCH = 8

Numbers = NDArray[np.float64]
# Weights that meet a channel, and their gradients, both `(others, size of the axis)`.
Met = tuple[NDArray[np.int64], NDArray[np.floating], NDArray[np.floating]]


def taylor(
    channel_map: ChannelMap, generator: np.random.Generator, samples: Samples | None = None
) -> Numbers:
    """First order: the mean over small batches of |∂L/∂z|, relative to the group's mean."""
    total = np.zeros(channel_map.count)
    for batch in _batches(channel_map, samples):
        gate = np.zeros(channel_map.count)
        for channels, weights, gradients in batch:
            np.add.at(gate, channels, np.einsum("ij,ij->j", weights, gradients))
        total += np.abs(gate)
    return relative_to_group(channel_map, total)


def hessian(
    channel_map: ChannelMap, generator: np.random.Generator, samples: Samples | None = None
) -> Numbers:
    """Second order: ½ Σ w² E[(∂L/∂w)²], the diagonal of the empirical Fisher matrix.

    Relative to the group's mean.
    """
    total = np.zeros(channel_map.count)
    for batch in _batches(channel_map, samples):
        for channels, weights, gradients in batch:
            product = weights * gradients
            np.add.at(total, channels, 0.5 * np.einsum("ij,ij->j", product, product))
    return relative_to_group(channel_map, total)


def _batches(channel_map: ChannelMap, samples: Samples | None) -> Iterator[list[Met]]:
    """For each small batch, the weights that read channels with the loss's gradients by them.

    For channels that no weights read, those that make them.

    Raises:
        EditError: When the labels do not fit the outputs.
    """
    assert samples is not None
    model = build(channel_map.graph)
    first, labels = tree.map_structure(lambda a: a[: 4 * BATCH], samples.with_labels())
    outputs = [to_floats(o) for o in tree.flatten(model(first, training=False))]
    gradients_of = weight_gradients(model, objective(outputs, labels, channel_map.graph.marks))
    parts = samples.inputs, samples.truths()
    position = _positions(channel_map, model)
    axes = _axes(channel_map)
    for start in range(0, len(samples) - len(samples) % BATCH or len(samples), BATCH):
        x, truths = tree.map_structure(lambda a, at=start: a[at : at + BATCH], parts)
        found = gradients_of(x, truths)
        yield [
            (channels, along(weight, axis), along(found[position[key]], axis))
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


def _positions(channel_map: ChannelMap, model: keras.Model) -> dict[tuple[str, str], int]:
    """The index in `model.weights` of each weight of the graph."""
    indices = {id(weight): i for i, weight in enumerate(model.weights)}
    layers = layers_of(channel_map.graph, model)
    return {
        (name, weight): indices[id(variable)]
        for name, operation in channel_map.graph.operations.items()
        if operation.weights
        for weight, variable in zip(operation.weights, layers[name].weights, strict=True)
    }
