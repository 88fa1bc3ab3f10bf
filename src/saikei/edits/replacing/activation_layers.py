"""Activation functions as layers that Keras has, so that a saved model needs nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from saikei.edits.replacing.functions import Function
from saikei.graph import Operation, TensorSpec, new_operation, new_weight

# The slope with which He et al. (2015), https://arxiv.org/abs/1502.01852, start a PReLU.
INITIAL_ALPHA = 0.25

_LAYERS: dict[str, Callable[..., Any]] = {
    "relu": keras.layers.ReLU,
    "leaky_relu": keras.layers.LeakyReLU,
    "elu": keras.layers.ELU,
    "softmax": keras.layers.Softmax,
}

_OPERATIONS: dict[str, Callable[..., Any]] = {
    "celu": keras.ops.celu,
    "gelu": keras.ops.gelu,
    "squareplus": keras.ops.squareplus,
    "soft_shrink": keras.ops.soft_shrink,
    "hard_shrink": keras.ops.hard_shrink,
    "threshold": keras.ops.threshold,
    "log_softmax": keras.ops.log_softmax,
    "sparsemax": keras.ops.sparsemax,
}


def activation_layer(function: Function, **settings: Any) -> Any:
    """A function other than PReLU as a layer that is not built.

    Args:
        function: The function, with parameters as a Keras layer has them.
        settings: `name`, `dtype` and `trainable` of the layer.
    """
    if function.plain:
        return keras.layers.Activation(function.name, **settings)
    if function.name in _LAYERS:
        return _LAYERS[function.name](**function.parameters, **settings)
    operation = _OPERATIONS[function.name]
    tensor = keras.Input((2,))
    # An operation is an object with a config only where it was called on a symbolic tensor.
    held = keras.Model(tensor, operation(tensor, **function.parameters)).operations[-1]
    return keras.layers.Activation(held, **settings)


def prelu_operation(
    function: Function, name: str, spec: TensorSpec, channel_axis: int, **settings: Any
) -> Operation:
    """A PReLU with its weights: one slope for each channel unless `shared_axes` is given.

    Args:
        function: A `"prelu"` whose `alpha` is a number.
        name: The name of the operation.
        spec: The shape and dtype of its input.
        channel_axis: The axis of the channels.
        settings: `dtype` and `trainable` of the layer.

    Raises:
        ValueError: When an axis that is not shared has no known size.
    """
    rank = len(spec.shape)
    shared = function.parameters["shared_axes"]
    if shared is None:
        shared = [axis for axis in range(1, rank) if axis != channel_axis % rank]
    if any(axis >= rank for axis in shared):
        raise ValueError(f"shared_axes={tuple(shared)} has an axis beyond its shape {spec.shape}")
    sizes = [1 if axis in shared else spec.shape[axis] for axis in range(1, rank)]
    shape = [size for size in sizes if size is not None]
    if len(shape) < len(sizes):
        raise ValueError(f"the shape {spec.shape} leaves a PReLU's axis unknown: share it")
    alpha = function.parameters["alpha"]
    layer = keras.layers.PReLU(
        alpha_initializer=keras.initializers.Constant(alpha),
        shared_axes=list(shared) or None,
        name=name,
        **settings,
    )
    weight = new_weight(np.full(shape, alpha, np.float32), settings.get("trainable", True))
    return new_operation(name, layer, {"alpha": weight})
