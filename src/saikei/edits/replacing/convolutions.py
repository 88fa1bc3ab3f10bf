"""Convolutions with other kernels, as chains of operations that compute at the same positions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import keras
import numpy as np

from saikei.edits.replacing.composition import (
    Array,
    Sizes,
    stack_limit,
    stacked,
)
from saikei.edits.replacing.geometry import Axis, place
from saikei.edits.replacing.poolings import as_sizes, spatial
from saikei.edits.replacing.selection import calls_of
from saikei.graph import Graph, Operation, new_operation, new_weight, unused_name

# The assumed correlation of neighbouring inputs, by which lost taps are added; see `folding`.
CORRELATION = 0.9

PLAIN = frozenset({"Conv1D", "Conv2D", "Conv3D"})
DEPTHWISE = frozenset({"DepthwiseConv1D", "DepthwiseConv2D"})
RESIZABLE = PLAIN | DEPTHWISE | {"SeparableConv1D", "SeparableConv2D"}


def axes_of(graph: Graph, operation: Operation) -> tuple[Axis, ...]:
    """The spatial axes of a convolution."""
    config = operation.config or {}
    rank = int(operation.kind[-2])
    shapes = [
        spatial(graph.spec(call.inputs()[0]).shape, config["data_format"])
        for call in calls_of(graph, operation.name)
    ]
    return tuple(
        Axis(kernel, stride, dilation, config["padding"], tuple(shape[i] for shape in shapes))
        for i, (kernel, stride, dilation) in enumerate(
            zip(
                as_sizes(config["kernel_size"], rank),
                as_sizes(config["strides"], rank),
                as_sizes(config["dilation_rate"], rank),
                strict=True,
            )
        )
    )


def folding(old: int, new: int, offset: int, correlation: float) -> Array:
    """How the weights of new taps are made of the old ones: a matrix of shape `(new, old)`.

    The weight of an old tap that has no new one is added to the nearest, times ρ^distance. That is
    the least squares fit of the output for inputs whose neighbours correlate by ρ, those at
    distance d by ρ^d (a first-order Markov signal). With ρ = 0 the kernel is cropped; an old tap
    that has a new one keeps its weight.

    Args:
        old: Number of old taps.
        new: Number of new taps.
        offset: How many old taps are before the first new one, below 0 where new ones come first.
        correlation: ρ, of inputs that neighbouring taps read.
    """
    matrix = np.zeros((new, old))
    for tap in range(old):
        nearest = min(max(tap - offset, 0), new - 1)
        distance = abs(tap - offset - nearest)
        matrix[nearest, tap] = correlation**distance if distance else 1.0
    return matrix


def resized(
    graph: Graph, operation: Operation, kernel: Sizes, correlation: float
) -> list[Operation]:
    """A convolution with a kernel of another size, at the middle of the old one.

    Raises:
        ValueError: When an input size would have to be known.
    """
    axes = axes_of(graph, operation)
    placement = place(axes, kernel)
    name = "depthwise_kernel" if "depthwise_kernel" in operation.weights else "kernel"
    weight = operation.weights[name]
    numbers = weight.numpy()
    array = numbers.astype(np.float64)
    for position, (axis, size, offset) in enumerate(
        zip(axes, kernel, placement.offsets, strict=True)
    ):
        # Taps that are further apart read inputs that correlate less.
        matrix = folding(axis.kernel, size, offset, correlation**axis.dilation)
        array = np.moveaxis(np.tensordot(matrix, array, (1, position)), 0, position)
    config = {**(operation.config or {}), "kernel_size": kernel}
    chain: list[Operation] = []
    if placement.pads is not None:
        config["padding"] = "valid"
        chain = padding_operations(graph, operation, placement.pads)
    weights = {**operation.weights, name: weight.with_array(array.astype(numbers.dtype))}
    return [*chain, replace(operation, config=config, weights=weights)]


def one_after_another(
    graph: Graph, operation: Operation, first: Sizes, middle: int
) -> list[Operation]:
    """Two convolutions with smaller kernels whose composition is near the old kernel.

    The padding of both is put before the first one, so that the tensor between is not cut off at
    the border: the pair computes what the composed kernel would.

    Raises:
        ValueError: When an input size would have to be known.
    """
    axes = axes_of(graph, operation)
    pads = [axis.pads() for axis in axes]
    parts = [
        stacked(part, first, size)
        for part, size in _by_group(operation, middle, lambda part: stack_limit(part, first))
    ]
    second = tuple(axis.kernel - size + 1 for axis, size in zip(axes, first, strict=True))
    one = {"kernel_size": first, "strides": (1,) * len(axes), "padding": "valid"}
    other = {"kernel_size": second, "padding": "valid"}
    chain = _pair(graph, operation, parts, one, other)
    return [*padding_operations(graph, operation, pads), *chain]


def _by_group(operation: Operation, middle: int, limit: Any) -> list[tuple[Array, int]]:
    """The kernel of each group, and how many channels between it gets."""
    groups = int((operation.config or {}).get("groups") or 1)
    kernel = operation.weights["kernel"].numpy()
    parts = np.split(kernel, groups, axis=-1)
    size = max(1, min(-(-middle // groups), limit(parts[0])))
    return [(part, size) for part in parts]


def _pair(
    graph: Graph,
    operation: Operation,
    parts: Sequence[tuple[Array, Array]],
    first: Mapping[str, Any],
    last: Mapping[str, Any],
) -> list[Operation]:
    """Two convolutions in a row; the last one has the bias, the function and the name."""
    # Normalised each for itself, they would be something else from the first training step on.
    operation = operation.bare()
    weight = operation.weights["kernel"]
    dtype = weight.numpy().dtype
    one, other = (np.concatenate([part[i] for part in parts], axis=-1) for i in (0, 1))
    config = dict(operation.config or {})
    name = unused_name(graph, f"{operation.name}_inner")
    inner = {
        **config,
        **first,
        "name": name,
        "filters": one.shape[-1],
        "use_bias": False,
        "bias_regularizer": None,
        "bias_constraint": None,
        "activation": "linear",
        "activity_regularizer": None,
    }
    kind = type(operation.source)
    before = new_operation(
        name,
        kind.from_config(inner),
        {"kernel": new_weight(one.astype(dtype), weight.trainable)},
    )
    weights = {**operation.weights, "kernel": new_weight(other.astype(dtype), weight.trainable)}
    return [before, replace(operation, config={**config, **last}, weights=weights)]


def padding_operations(
    graph: Graph, operation: Operation, pads: Sequence[tuple[int, int]]
) -> list[Operation]:
    """What pads (or, below 0, crops) the input of a convolution; nothing where pads are 0."""
    config = operation.config or {}
    rank = len(pads)
    added = tuple((max(before, 0), max(after, 0)) for before, after in pads)
    removed = tuple((max(-before, 0), max(-after, 0)) for before, after in pads)
    chain = []
    for kind, amounts, word in (("ZeroPadding", added, "pad"), ("Cropping", removed, "crop")):
        if not any(map(any, amounts)):
            continue
        settings = {"dtype": config.get("dtype"), "trainable": config.get("trainable", True)}
        if rank > 1:
            settings["data_format"] = config["data_format"]
        elif config["data_format"] == "channels_first":
            raise ValueError("Keras has no padding over one axis with channels first")
        name = unused_name(graph, f"{operation.name}_{word}")
        layer = getattr(keras.layers, f"{kind}{rank}D")
        amount = amounts[0] if rank == 1 else amounts
        chain.append(new_operation(name, layer(amount, name=name, **settings)))
    return chain
