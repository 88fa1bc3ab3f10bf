"""Activation functions that are not Keras's own: `Dense(4, activation=lambda x: ...)`.

What they do is traced. Where a layer applies its activation last, that stands behind it in the
graph as the operations that it calls.
"""

from __future__ import annotations

import types
from typing import Any

import keras
import numpy as np

from saikei.graph import internals
from saikei.graph.untraceable import UntraceableError
from saikei.rules import find_rule
from saikei.rules.activations import elementwise, mixes_channels
from saikei.rules.merging import MERGES

# Layers that apply their activation last, so that it can stand behind them.
_LAST_NAMES = (
    "Dense EinsumDense Conv1D Conv2D Conv3D Conv1DTranspose Conv2DTranspose Conv3DTranspose "
    "DepthwiseConv1D DepthwiseConv2D SeparableConv1D SeparableConv2D"
)
_LAST = frozenset(_LAST_NAMES.split())


class Applied(keras.Layer):
    """A function as a layer, to run it on symbolic tensors.

    Args:
        function: of one tensor.
        name: of the layer.
        dtype: its dtype policy.
    """

    def __init__(self, function: Any, name: str, dtype: Any) -> None:
        super().__init__(name=name, dtype=dtype)
        self.function = function
        self.built = True

    def call(self, inputs: Any) -> Any:
        """What the function gives."""
        return self.function(inputs)


def is_traceable(operation: Any) -> bool:
    """Whether a layer has a `call` that only tracing shows, as the steps that it takes."""
    if type(operation) is keras.layers.Lambda:
        return True
    if type(operation) is keras.layers.Activation:
        return _is_taken_apart(operation)
    if isinstance(operation, keras.layers.Pipeline):
        # It calls the layers in it one after the other.
        return True
    return internals.overrides_call(operation) and find_rule(internals.kind_of(operation)) is None


def apart(layer: Any) -> tuple[Any, Any] | None:
    """A layer without its activation, and the activation, where tracing shows what that does.

    Args:
        layer: a built layer, which is not changed.

    Returns:
        The layer with a linear activation, with the same variables, and a layer that applies the
        activation; `None` where the layer keeps its activation.
    """
    if type(layer).__name__ not in _LAST or not _is_taken_apart(layer):
        return None
    function = layer.activation
    bare = internals.detached_copy(layer)
    bare.__dict__["activation"] = keras.activations.linear
    bare.__dict__["_layers"] = [part for part in layer._layers if part is not function]
    bare.__dict__["_taken_from"] = layer
    if not isinstance(function, keras.Layer):
        function = Applied(function, layer.name, layer.dtype_policy)
    return bare, function


def whole(operation: Any) -> Any:
    """The layer that `apart` has taken an activation from; any other operation itself."""
    return vars(operation).get("_taken_from", operation)


def _is_taken_apart(layer: Any) -> bool:
    """Whether a layer's activation is no setting that its class and a file could keep."""
    if not type(layer).__module__.startswith("keras."):
        return False
    function = getattr(layer, "activation", None)
    if getattr(layer, "quantization_mode", None) is not None:
        return False
    if isinstance(function, keras.Layer):
        return mixes_channels(keras.saving.serialize_keras_object(function)) is not None
    if not is_own(function):
        return False
    return not (is_registered(function) and is_elementwise(function))


def is_own(function: Any) -> bool:
    """Whether a function is none of Keras's activations, which a config holds by name."""
    if function is None or not callable(function) or isinstance(function, (keras.Layer, type)):
        return False
    namesake = _namesake(function)
    if namesake is not None:
        # Keras takes a function of TensorFlow for its own of that name.
        return not (namesake is function or function.__module__.startswith("tensorflow."))
    if is_registered(function):
        serialised = keras.activations.serialize(function)
        return isinstance(serialised, dict) and mixes_channels(serialised) is not None
    return True


def _namesake(function: Any) -> Any:
    """The activation of Keras that Keras would write down for a function, or `None`."""
    if not isinstance(function, types.FunctionType):
        return None
    try:
        return keras.activations.get(function.__name__)
    except ValueError:
        return None


def is_registered(function: Any) -> bool:
    """Whether Keras can find a function again by the name in a file."""
    if not isinstance(function, types.FunctionType) or _namesake(function) is not None:
        return False
    return keras.saving.get_registered_object(registered_name(function)) is function


def registered_name(function: Any) -> str:
    """The name under which Keras looks for a function or class."""
    return str(keras.saving.get_registered_name(function))


def is_elementwise(function: Any) -> bool:
    """Whether tracing shows that a function treats each number on its own."""
    from saikei.graph.retrace import trace

    tensor = keras.KerasTensor((None, None))
    try:
        traced = trace(Applied(function, "applied", None), (tensor,), {})
    except UntraceableError:
        return False
    if not isinstance(traced.outputs, keras.KerasTensor):
        return False
    stand_ins = traced.stand_ins.values()
    given_alone = all(isinstance(one, keras.KerasTensor) for one in stand_ins)
    return given_alone and all(map(_treats_each, traced.steps.values()))


def _treats_each(step: Any) -> bool:
    kind = internals.kind_of(step.operation)
    rule = find_rule(kind)
    leaves = keras.tree.flatten((step.args, step.kwargs))
    scalars = all(isinstance(x, keras.KerasTensor) or np.ndim(x) == 0 for x in leaves)
    shapes = {tuple(tensor.shape) for tensor in (*step.inputs(), *step.outputs)}
    known = kind in MERGES or (rule is not None and rule.flow is elementwise)
    return known and scalars and shapes == {(None, None)}
