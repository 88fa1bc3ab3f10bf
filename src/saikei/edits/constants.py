"""Channels that are constant go into the biases of what reads them: exact, and without data.

A filter whose weights are all zero, or a BatchNormalization with γ = 0, gives the same value
everywhere. Cutting it would change what its readers compute by a constant, so that goes into their
bias; where a convolution pads, the constant is not one at the border, and stays lost.
"""

from __future__ import annotations

from dataclasses import replace

import keras
import numpy as np
from numpy.typing import NDArray

from saikei.channels import BoolMask, ChannelMap
from saikei.graph import Call, Graph, Operation, TensorRef
from saikei.graph.instantiate import instantiate
from saikei.importance.readers import ReadAxis, read_axes
from saikei.rules.activations import RULES as ACTIVATIONS
from saikei.rules.labels import labelled
from saikei.tensors import to_floats

Values = NDArray[np.float64]

# What gives the value of a channel unchanged where it is the same everywhere.
_SAME = frozenset(
    {"Flatten", "Reshape", "Permute", "Identity", "GlobalAveragePooling1D", "GlobalMaxPooling1D"}
    | {"GlobalAveragePooling2D", "GlobalMaxPooling2D", "MaxPooling1D", "MaxPooling2D"}
    | {"AveragePooling1D", "AveragePooling2D", "Dropout", "SpatialDropout1D", "SpatialDropout2D"}
)
_LINEAR = frozenset({"Dense", "Conv1D", "Conv2D", "Conv3D"})


def fold_constants(channel_map: ChannelMap, keep: BoolMask) -> Graph:
    """The graph with what constant channels give, of those that go, in their readers' biases.

    Args:
        channel_map: A graph with its channels.
        keep: For each channel, whether it stays.

    Returns:
        A graph of the same shapes; cutting the channels from it then leaves its function as it
        is, as far as they are constant and their readers have a bias that can take it.
    """
    if keep.all():
        return channel_map.graph
    constants = _constants(channel_map)
    if not constants:
        return channel_map.graph
    added: dict[str, Values] = {}
    for carrier in read_axes(channel_map):
        values = constants.get(carrier.ref, {}).get(carrier.axis)
        if values is None or len(carrier.weights) != 1:
            continue
        gone = ~keep[carrier.channels] & np.isfinite(values) & (values != 0)
        name = carrier.weights[0][1]
        if gone.any() and _takes(channel_map.graph.operations[name]):
            added[name] = _contribution(channel_map, carrier, np.where(gone, values, 0.0))
    # A shared layer has one bias, and its calls may read different constants.
    shared = [call.operation for call in channel_map.graph.calls]
    changed = {
        name: _with_bias(channel_map.graph.operations[name], values)
        for name, values in added.items()
        if shared.count(name) == 1
    }
    return channel_map.graph.with_operations(changed)


def _takes(operation: Operation) -> bool:
    padding = (operation.config or {}).get("padding", "valid")
    if operation.kind in _LINEAR and set(operation.weights["kernel"].shape[:-2]) <= {1}:
        padding = "valid"
    groups = int((operation.config or {}).get("groups") or 1)
    return (
        operation.kind in _LINEAR
        and set(operation.weights) == {"kernel", "bias"}
        and padding == "valid"
        and groups == 1
    )


def _contribution(channel_map: ChannelMap, carrier: ReadAxis, values: Values) -> Values:
    _, operation, name, axis = carrier.weights[0]
    kernel = channel_map.graph.operations[operation].weights[name].numpy().astype(np.float64)
    flat = np.moveaxis(kernel, axis, 0)
    total = np.tensordot(values, flat, axes=1).reshape(-1, kernel.shape[-1]).sum(axis=0)
    return np.asarray(total, dtype=np.float64)


def _with_bias(operation: Operation, more: Values) -> Operation:
    bias = operation.weights["bias"]
    array = bias.numpy()
    total = (array.astype(np.float64) + more).astype(array.dtype)
    return replace(operation, weights={**operation.weights, "bias": bias.with_array(total)})


def _constants(channel_map: ChannelMap) -> dict[TensorRef, dict[int, Values]]:
    """For each tensor and labelled axis, the value at each index; NaN where it varies."""
    known: dict[TensorRef, dict[int, Values]] = {}
    by_channel: dict[TensorRef, dict[int, float]] = {}
    for index, call in enumerate(channel_map.graph.calls):
        if len(call.outputs) != 1:
            continue
        ref = TensorRef(index, 0)
        for axis, vector in labelled(channel_map.flows[index].outputs[0]):
            values = _made(channel_map, call, len(vector), known)
            if values is None and call.inputs() and call.inputs()[0] in by_channel:
                values = _passed(channel_map, call, vector, by_channel[call.inputs()[0]])
            if values is not None and np.isfinite(values).any():
                known.setdefault(ref, {})[axis] = values
                channels = channel_map.channel_of[vector]
                by_channel.setdefault(ref, {}).update(
                    {int(c): float(v) for c, v in zip(channels, values, strict=True)}
                )
    return known


def _made(
    channel_map: ChannelMap,
    call: Call,
    size: int,
    known: dict[TensorRef, dict[int, Values]],
) -> Values | None:
    """Constants that a layer makes itself: where all that makes the channel is zero."""
    operation = channel_map.graph.operations[call.operation]
    if operation.kind in _LINEAR and set(operation.weights) <= {"kernel", "bias"}:
        kernel = operation.weights["kernel"].numpy()
        flat = kernel.reshape(-1, kernel.shape[-1])
        silent = flat[0] == 0
        if not silent.any():
            return None
        silent[silent] = ~flat[:, silent].any(axis=0)
        bias = operation.weights.get("bias")
        values = np.zeros(size) if bias is None else bias.numpy().astype(np.float64)
        return np.where(silent, _activated(operation, values), np.nan)
    if operation.kind == "BatchNormalization" and "gamma" in operation.weights:
        return _normalised(operation, list(known.get(call.inputs()[0], {}).values()))
    return None


def _normalised(operation: Operation, given: list[Values]) -> Values:
    """What a BatchNormalization makes of constants, and where its scale of 0 makes one."""
    weights = {name: w.numpy().astype(np.float64) for name, w in operation.weights.items()}
    offset = weights.get("beta", np.zeros(len(weights["gamma"])))
    values = np.where(weights["gamma"] == 0, offset, np.nan)
    epsilon = float((operation.config or {})["epsilon"])
    scale = weights["gamma"] / np.sqrt(weights["moving_variance"] + epsilon)
    for before in given:
        if len(before) == len(values):
            passed = (before - weights["moving_mean"]) * scale + offset
            values = np.where(np.isfinite(values), values, passed)
    return values


def _passed(
    channel_map: ChannelMap,
    call: Call,
    vector: NDArray[np.int64],
    before: dict[int, float],
) -> Values | None:
    operation = channel_map.graph.operations[call.operation]
    channels = channel_map.channel_of[vector]
    values = np.array([before.get(int(channel), np.nan) for channel in channels])
    if operation.kind in _SAME:
        # Whether zeros around the picture count in an average depends on the backend.
        averaged = operation.kind in ("AveragePooling1D", "AveragePooling2D")
        padded = (operation.config or {}).get("padding") == "same"
        return None if averaged and padded else values
    if operation.kind in ("ReLU", "LeakyReLU", "ELU", "Activation") and (
        operation.kind in ACTIVATIONS and not operation.weights
    ):
        layer = instantiate(operation)
        return np.asarray(to_floats(layer(values[None])), np.float64).reshape(-1)
    return None


def _activated(operation: Operation, values: Values) -> Values:
    activation = getattr(instantiate(operation), "activation", None)
    if activation is None:
        return values
    tensor = keras.ops.convert_to_tensor(values.astype(np.float32)[None])
    return np.asarray(to_floats(activation(tensor)), np.float64).reshape(-1)
