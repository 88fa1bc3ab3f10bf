"""Common layers with weights as functions of `keras.ops`.

Making a layer of Keras for each changed set of weights takes longer than computing with it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import keras
import numpy as np
from keras import ops

from saikei.graph import Operation

_CONVOLUTIONS = {
    "Conv1D": ops.conv,
    "Conv2D": ops.conv,
    "Conv3D": ops.conv,
    "DepthwiseConv1D": ops.depthwise_conv,
    "DepthwiseConv2D": ops.depthwise_conv,
}


@dataclass(frozen=True)
class Direct:
    """A layer in float32 as functions of tensors.

    Args:
        linear: From the layer's input to its output before the activation.
        activation: The activation; `None` where there is none.
    """

    linear: Callable[[Any], Any]
    activation: Callable[[Any], Any] | None


def direct(operation: Operation) -> Direct | None:
    """A layer as functions, `None` where it is not one of the common ones in their plain form."""
    kind, config = operation.kind, operation.config or {}
    plain = operation.quantised is None and operation.spectral is None
    if not plain or type(operation.source) is not getattr(keras.layers, kind, None):
        return None
    if operation.source.compute_dtype != "float32":
        return None
    if kind == "BatchNormalization":
        return Direct(_batch_norm(operation, config), None)
    activation = config.get("activation")
    if set(operation.weights) - {"kernel", "bias"} or "kernel" not in operation.weights:
        return None
    if activation is not None and not isinstance(activation, str):
        return None
    if kind == "Dense":
        linear: Callable[[Any, Any], Any] = ops.matmul
    elif kind in _CONVOLUTIONS and config.get("padding") != "causal":
        linear = _convolution(kind, config)
    else:
        return None
    function = None if activation in (None, "linear") else keras.activations.get(activation)
    return Direct(_with_bias(operation, config, linear), function)


def _convolution(kind: str, config: Any) -> Callable[[Any, Any], Any]:
    settings = {
        "strides": _plain(config.get("strides", 1)),
        "padding": config.get("padding", "valid"),
        "data_format": config.get("data_format"),
        "dilation_rate": _plain(config.get("dilation_rate", 1)),
    }
    return lambda x, kernel: _CONVOLUTIONS[kind](x, kernel, **settings)


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, (list, tuple)) else value


def _with_bias(
    operation: Operation, config: Any, linear: Callable[[Any, Any], Any]
) -> Callable[[Any], Any]:
    kernel = ops.convert_to_tensor(operation.weights["kernel"].numpy())
    if "bias" not in operation.weights:
        return lambda x: linear(x, kernel)
    bias = operation.weights["bias"].numpy().reshape(-1)
    if config.get("data_format") == "channels_first" and operation.kind != "Dense":
        bias = bias.reshape(-1, *(1,) * (kernel.ndim - 2))
    offset = ops.convert_to_tensor(bias)
    return lambda x: ops.add(linear(x, kernel), offset)


def _batch_norm(operation: Operation, config: Any) -> Callable[[Any], Any]:
    numbers = {name: w.numpy().astype(np.float64) for name, w in operation.weights.items()}
    scale = numbers.get("gamma", 1.0) / np.sqrt(numbers["moving_variance"] + config["epsilon"])
    shift = numbers.get("beta", 0.0) - numbers["moving_mean"] * scale
    axis = config["axis"][0] if isinstance(config["axis"], (list, tuple)) else config["axis"]

    @cache
    def along(rank: int) -> tuple[Any, Any]:
        shape = [1] * rank
        shape[axis] = len(scale)
        parts = (part.astype(np.float32).reshape(shape) for part in (scale, shift))
        first, second = map(ops.convert_to_tensor, parts)
        return first, second

    def normalised(x: Any) -> Any:
        factor, offset = along(len(x.shape))
        return ops.add(ops.multiply(x, factor), offset)

    return normalised
