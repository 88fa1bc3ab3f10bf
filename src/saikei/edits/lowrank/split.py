"""A split: how to write a layer as two thinner ones, for any rank."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from saikei.edits.lowrank.spectrum import Array, Spectrum
from saikei.graph import Call, Graph, Operation, TensorSpec, new_operation, new_weight, sized
from saikei.graph.own_functions import found_functions
from saikei.rules.base import product

Chain = tuple[Operation, Operation]


@dataclass(frozen=True)
class Split:
    """One scheme that writes a layer as two thinner ones.

    Args:
        scheme: `"svd"`, `"channel"`, `"spatial"` or `"depthwise"`.
        spectrum: The singular values of the layer's kernel, laid out for this scheme.
        params_per_rank: Parameters of both kernels for each rank.
        macs_per_rank: Multiply-accumulates per sample for each rank, of all the layer's calls.
        chain: The two layers, given the first one's name and the rank.
    """

    scheme: str
    spectrum: Spectrum
    params_per_rank: int
    macs_per_rank: int
    chain: Callable[[str, int], Chain]


@dataclass(frozen=True)
class Splits:
    """All the schemes that can split a layer.

    Args:
        layer: The name of the layer.
        params: The number of parameters of its kernel.
        macs: Multiply-accumulates per sample of all its calls; 0 for a table that is looked up.
        schemes: The splits; at least one.
    """

    layer: str
    params: int
    macs: int
    schemes: tuple[Split, ...]


@dataclass(frozen=True)
class CallShapes:
    """The input and output of one call of a layer, at full size, and its rows per sample."""

    given: TensorSpec
    made: TensorSpec
    rows: int = 1


def shapes_of_calls(graph: Graph, name: str) -> list[CallShapes]:
    """The input and output of every call of an operation with one tensor in and one out."""
    full = sized(graph)
    calls: Iterable[Call] = (call for call in full.graph.calls if call.operation == name)
    found = [CallShapes(full.graph.spec(call.inputs()[0]), call.outputs[0]) for call in calls]
    return [replace(c, rows=(c.given.shape[0] or full.batch) // full.batch) for c in found]


def positions(call: CallShapes, channel_axis: int) -> int:
    """At how many positions a call makes its channels for one sample; unknown sizes count as 1."""
    shape = call.made.shape
    channel_axis %= len(shape)
    return call.rows * product(
        tuple(s for axis, s in enumerate(shape) if axis not in (0, channel_axis))
    )


def why_not_split(graph: Graph, operation: Operation, kernel: str) -> str | None:
    """Why no layer of this sort can be split, whatever the scheme; `None` when it can."""
    if operation.spectral is not None:
        return f"has a {kernel} that is normalised in training, which its factors would not be"
    if set(operation.weights) - {kernel, "bias"} or kernel not in operation.weights:
        return f"has weights {', '.join(operation.weights)} instead of {kernel} and bias"
    weight = operation.weights[kernel]
    for other in graph.operations.values():
        if other is not operation and any(w.key == weight.key for w in other.weights.values()):
            return f"shares its {kernel} with '{other.name}'"
    if (operation.config or {}).get(f"{kernel}_constraint") is not None:
        return f"has a {kernel} constraint, which its factors would not keep"
    if not np.isfinite(weight.numpy().astype(np.float32)).all():
        return f"has a {kernel} that is not finite"
    return None


def changed(
    operation: Operation,
    name: str,
    config: Mapping[str, Any],
    weights: Mapping[str, Array],
    cls: Any = None,
) -> Operation:
    """A new operation like another one, with other settings and its weights' dtype.

    Args:
        operation: The operation that the new one takes class, dtype and `trainable` from.
        name: The name of the new operation.
        config: All its settings but the name.
        weights: Its arrays; a bias is taken over as it is.
        cls: Another class to make.
    """
    with found_functions(operation.source):
        layer = (cls or type(operation.source)).from_config({**config, "name": name})
    layer.trainable = operation.source.trainable
    first = next(iter(operation.weights.values()))
    dtype = first.numpy().dtype
    made = {key: new_weight(array.astype(dtype), first.trainable) for key, array in weights.items()}
    if "bias" in operation.weights and config.get("use_bias", config.get("bias_axes")):
        made["bias"] = operation.weights["bias"]
    return new_operation(name, layer, made)


def linear_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a first factor: bias, activation and its regulariser stay on the last one."""
    settings = {key: value for key, value in config.items() if not key.startswith("bias_")}
    settings.pop("activity_regularizer", None)
    if "use_bias" in settings:
        settings["use_bias"] = False
    if "activation" in settings:
        settings["activation"] = "linear"
    return settings
