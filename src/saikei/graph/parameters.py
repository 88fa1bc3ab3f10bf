"""Weights that a `call` uses itself, as layers of Keras.

In `x * self.gamma` the weight belongs to no layer of Keras. It becomes an `EinsumDense` that is
called on a single one, so that its output is its kernel: a core layer that trains, saves and loads
anywhere. Its kernel has the variable's shape, and the graph treats both as one variable.
"""

from __future__ import annotations

import string
from typing import Any

import keras
import numpy as np

from saikei.graph.flat import TensorSpec, Weight


def symbolic_one(spec: TensorSpec) -> tuple[Any, Any]:
    """A vector with a single 1 in it, computed from a tensor of that spec.

    Returns:
        A symbolic tensor of the spec, and the vector, of shape `(1,)`.
    """
    anchor = keras.KerasTensor(spec.shape, dtype=spec.dtype)
    first = anchor[(slice(0, 1), *(0 for _ in spec.shape[1:]))]
    return anchor, keras.ops.ones_like(first, dtype="float32")


def parameter_layer(variable: Any, dtype: str, name: str) -> tuple[Any, Weight]:
    """A layer, not yet built, that turns a vector with a single 1 into a variable's value.

    Returns:
        The layer, whose output has the shape `(1, *shape)`, and its kernel.
    """
    shape = tuple(variable.shape) or (1,)
    axes = string.ascii_lowercase[1 : 1 + len(shape)]
    initialiser = getattr(variable, "initializer", None)
    layer = keras.layers.EinsumDense(
        f"a,{axes}->a{axes}",
        output_shape=shape,
        kernel_initializer=initialiser if _has_config(initialiser) else "zeros",
        kernel_regularizer=variable.regularizer,
        kernel_constraint=variable.constraint,
        dtype=_policy(str(variable.dtype), dtype),
        name=name,
    )
    layer.trainable = bool(variable.trainable)
    source = variable if tuple(variable.shape) else np.reshape(variable.numpy(), shape)
    return layer, Weight(id(variable), shape, source, bool(variable.trainable))


def symbolic_value(variable: Any, dtype: str) -> tuple[Any, Any]:
    """The variable's value from the output of its layer, as `(stand-in for it, value)`."""
    shape = tuple(variable.shape)
    made = keras.KerasTensor((None, *(shape or (1,))), dtype=dtype)
    return made, made[(0,) if shape else (0, 0)]


def symbolic_constant(array: np.ndarray) -> tuple[Any, Any]:
    """An array of at least one axis as a symbolic tensor, from a stand-in for a single 1."""
    one = keras.KerasTensor((None,), dtype="float32")
    dtype = keras.backend.standardize_dtype(array.dtype)
    value = keras.ops.multiply(keras.ops.cast(one, dtype), np.atleast_1d(array))
    return one, value if array.ndim else value[0]


def _has_config(initialiser: Any) -> bool:
    return isinstance(initialiser, keras.initializers.Initializer)


def _policy(variable_dtype: str, compute_dtype: str) -> str:
    return variable_dtype if variable_dtype == compute_dtype else f"mixed_{compute_dtype}"
