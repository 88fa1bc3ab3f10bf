"""Scale and shift of each channel, and how a linear layer takes them into its weights.

For an output y = W∗x + b, the layer W′ = s·W, b′ = s·b + t gives s·y + t. For an input
s·x + t, the layer W′ = W·s, b′ = b + W∗t gives what W gave, where no padding is in the way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from saikei.graph import Operation, Weight, new_weight
from saikei.rules import why_whole

Array: TypeAlias = NDArray[np.float64]


class CannotFoldError(Exception):
    """Why a scale and shift cannot be taken into a layer."""


@dataclass(frozen=True)
class Affine:
    """A scale and a shift for each index of one axis of a tensor.

    Args:
        scale: The factors, `(channels,)`.
        shift: The numbers that are added, `(channels,)`.
        axis: The axis of the channels in the tensor, whose axis 0 is the batch.
        rank: The number of axes of the tensor, with the batch.
    """

    scale: Array
    shift: Array
    axis: int
    rank: int

    def same(self, other: Affine) -> bool:
        """Whether the other one does the same."""
        return (
            (self.axis, self.rank) == (other.axis, other.rank)
            and np.array_equal(self.scale, other.scale)
            and np.array_equal(self.shift, other.shift)
        )

    def at(self, axis: int, rank: int) -> Affine:
        """These numbers for another tensor's axis."""
        return replace(self, axis=axis, rank=rank)


def of_batch_norm(operation: Operation, rank: int) -> Affine:
    """What a `BatchNormalization` does at inference.

    Args:
        operation: The layer; without `scale` or `center`, these are 1 and 0.
        rank: The number of axes of its input, with the batch.
    """
    config = operation.config or {}
    numbers = {name: _float64(weight) for name, weight in operation.weights.items()}
    mean, variance = numbers["moving_mean"], numbers["moving_variance"]
    scale = numbers.get("gamma", 1.0) / np.sqrt(variance + float(config["epsilon"]))
    shift = numbers.get("beta", 0.0) - mean * scale
    axis = config["axis"]
    axis = axis[0] if isinstance(axis, (list, tuple)) else axis
    return Affine(scale, shift, int(axis) % rank, rank)


def _not_linear(operation: Operation) -> CannotFoldError:
    if operation.quantised is not None:
        return CannotFoldError(why_whole(operation.name, operation.quantised.mode))
    return CannotFoldError(f"'{operation.name}' ({operation.kind}) is not known to be linear")


def fold_behind(operation: Operation, affine: Affine) -> Operation:
    """The layer that gives its output scaled and shifted.

    Raises:
        CannotFoldError: When the layer is not linear up to its output, or the axis is not that
            of its channels.
    """
    kernels, activation = _WEIGHTS.get(operation.kind), (operation.config or {}).get("activation")
    if kernels is None or not set(operation.weights) <= {*kernels, "bias"}:
        raise _not_linear(operation)
    if activation not in (None, "linear"):
        raise CannotFoldError(f"'{operation.name}' ends in an activation")
    if operation.kind == "EinsumDense":
        return _einsum_behind(operation, affine)
    _check_axis(operation, affine)
    kernel = _float64(operation.weights[kernels[-1]])
    bias = _bias(operation, len(affine.scale))
    return _changed(
        operation,
        {kernels[-1]: kernel * _along_outputs(operation.kind, kernel.shape, affine.scale)},
        bias * affine.scale + affine.shift,
    )


def fold_ahead(operation: Operation, affine: Affine) -> Operation:
    """The layer that gives, for the plain input, what it gave for one scaled and shifted.

    Raises:
        CannotFoldError: When the layer is not linear, or pads with zeros that would have to be
            shifted.
    """
    kernels = _WEIGHTS.get(operation.kind)
    absorb = _ABSORB.get(operation.kind)
    if kernels is None or absorb is None or not set(operation.weights) <= {*kernels, "bias"}:
        raise _not_linear(operation)
    _check_axis(operation, affine)
    if affine.shift.any() and _pads(operation):
        raise CannotFoldError(f"'{operation.name}' pads with zeros, which would need the shift")
    given = [_float64(operation.weights[name]) for name in kernels]
    kernel, offset = absorb(operation, given, affine)
    return _changed(operation, {kernels[0]: kernel}, _bias(operation, len(offset)) + offset)


_WEIGHTS: dict[str, tuple[str, ...]] = {"Dense": ("kernel",), "EinsumDense": ("kernel",)}
for _rank in "123":
    _WEIGHTS[f"Conv{_rank}D"] = _WEIGHTS[f"Conv{_rank}DTranspose"] = ("kernel",)
    _WEIGHTS[f"DepthwiseConv{_rank}D"] = ("kernel",)
    _WEIGHTS[f"SeparableConv{_rank}D"] = ("depthwise_kernel", "pointwise_kernel")


def _along_outputs(kind: str, shape: tuple[int, ...], scale: Array) -> Array:
    """The scale in a shape that multiplies a kernel's outputs."""
    if kind.startswith("Depthwise"):
        return scale.reshape(shape[-2:])
    return scale[:, None] if kind.endswith("Transpose") else scale


def _einsum_behind(operation: Operation, affine: Affine) -> Operation:
    """Scale the kernel along the label of the output's axis."""
    config = dict(operation.config or {})
    left, _, out = str(config["equation"]).replace(" ", "").partition("->")
    labels = left.partition(",")[2]
    # Counted from the end, because "..." may stand for several axes at the front.
    label = out[affine.axis - affine.rank]
    kernel = _float64(operation.weights["kernel"])
    size = kernel.shape[labels.index(label)] if label in labels else 0
    if out.endswith(".") or size != len(affine.scale):
        raise CannotFoldError(f"'{operation.name}' does not make the normalised axis")
    scale = affine.scale.reshape([-1 if entry == label else 1 for entry in labels])
    # The bias has the output's axes from the first that it varies over.
    trailing = (-1, *([1] * (affine.rank - affine.axis - 1)))
    if "bias" in operation.weights and label not in str(config["bias_axes"]):
        raise CannotFoldError(f"the bias of '{operation.name}' has not the normalised axis")
    old = _float64(operation.weights["bias"]) if "bias" in operation.weights else np.zeros(1)
    bias = old * affine.scale.reshape(trailing) + affine.shift.reshape(trailing)
    if "bias" not in operation.weights:
        operation = replace(operation, config={**config, "bias_axes": label})
    return _changed(operation, {"kernel": kernel * scale}, bias)


Absorbed: TypeAlias = tuple[Array, Array]


def _into_dense(operation: Operation, kernels: list[Array], affine: Affine) -> Absorbed:
    (kernel,) = kernels
    return kernel * affine.scale[:, None], affine.shift @ kernel


def _into_conv(operation: Operation, kernels: list[Array], affine: Affine) -> Absorbed:
    (kernel,) = kernels
    inner, filters = kernel.shape[-2:]
    groups = len(affine.scale) // inner
    # Filter f of group g reads the channels g·inner to (g + 1)·inner.
    scale, shift = (
        np.repeat(values.reshape(groups, inner), filters // groups, axis=0).T
        for values in (affine.scale, affine.shift)
    )
    return kernel * scale, (kernel * shift).reshape(-1, filters).sum(axis=0)


def _into_transposed(operation: Operation, kernels: list[Array], affine: Affine) -> Absorbed:
    (kernel,) = kernels
    return kernel * affine.scale, (kernel * affine.shift).sum(axis=-1).reshape(
        -1, kernel.shape[-2]
    ).sum(axis=0)


def _into_depthwise(operation: Operation, kernels: list[Array], affine: Affine) -> Absorbed:
    (kernel,) = kernels
    moved = (kernel * affine.shift[:, None]).reshape(-1, *kernel.shape[-2:]).sum(axis=0)
    return kernel * affine.scale[:, None], moved.reshape(-1)


def _into_separable(operation: Operation, kernels: list[Array], affine: Affine) -> Absorbed:
    depthwise, pointwise = kernels
    kernel, between = _into_depthwise(operation, [depthwise], affine)
    return kernel, between @ pointwise.reshape(pointwise.shape[-2:])


_ABSORB: dict[str, Callable[[Operation, list[Array], Affine], Absorbed]] = {"Dense": _into_dense}
for _rank in "123":
    _ABSORB[f"Conv{_rank}D"] = _into_conv
    _ABSORB[f"Conv{_rank}DTranspose"] = _into_transposed
    _ABSORB[f"DepthwiseConv{_rank}D"] = _into_depthwise
    _ABSORB[f"SeparableConv{_rank}D"] = _into_separable


def _check_axis(operation: Operation, affine: Affine) -> None:
    first = (operation.config or {}).get("data_format") == "channels_first"
    if affine.axis != (1 if first and operation.kind != "Dense" else affine.rank - 1):
        raise CannotFoldError(f"its axis is not that of the channels of '{operation.name}'")


def _pads(operation: Operation) -> bool:
    """Whether some position of the output sees fewer taps of the kernel than others."""
    config = operation.config or {}
    if operation.kind == "Dense":
        return False
    size = next(iter(operation.weights.values())).shape[:-2]
    if operation.kind.endswith("Transpose"):
        return set(size) != {1} or set(np.atleast_1d(config["strides"]).tolist()) != {1}
    return config["padding"] != "valid" and set(size) != {1}


def _float64(weight: Weight) -> Array:
    return weight.numpy().astype(np.float64)


def _bias(operation: Operation, size: int) -> Array:
    return _float64(operation.weights["bias"]) if "bias" in operation.weights else np.zeros(size)


def _changed(operation: Operation, kernels: Mapping[str, Array], bias: Array) -> Operation:
    weights: dict[str, Weight] = dict(operation.weights)
    first = next(iter(weights.values()))
    for name, array in kernels.items():
        weights[name] = weights[name].with_array(_rounded(operation, array, weights[name]))
    config: dict[str, Any] = dict(operation.config or {})
    if "bias" in weights:
        if weights["bias"].shape != bias.shape:
            raise CannotFoldError(f"the bias of '{operation.name}' has not the normalised axis")
        weights["bias"] = weights["bias"].with_array(_rounded(operation, bias, weights["bias"]))
    elif bias.any():
        weights["bias"] = new_weight(_rounded(operation, bias, first), first.trainable)
        if operation.kind != "EinsumDense":
            config["use_bias"] = True
    return replace(operation, weights=weights, config=config)


def _rounded(operation: Operation, array: Array, weight: Weight) -> NDArray[Any]:
    rounded: NDArray[Any] = array.astype(weight.numpy().dtype)
    if not np.isfinite(rounded.astype(np.float64)).all():
        raise CannotFoldError(f"the weights of '{operation.name}' would not be finite")
    return rounded
