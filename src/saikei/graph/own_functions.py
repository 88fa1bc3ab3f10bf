"""Functions that are not Keras's own, in layers that are: `Dense(4, activation=lambda x: ...)`.

Keras writes only the name of such a function into a layer's config, or nothing that it can read
again. In the process that the function lives in, it is used as it is: the config gets a name that
tells what is known of the function, and the function is looked up by that name when the layer is
made again.
"""

from __future__ import annotations

import functools
import marshal
import types
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np

from saikei.graph import internals
from saikei.rules import find_rule
from saikei.rules.activations import ELEMENTWISE, OWN, elementwise, mixes_channels
from saikei.rules.merging import MERGES

_NAMES = ("activation", "recurrent_activation")
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
    if not _is_own(function):
        return False
    return not (_is_registered(function) and _is_elementwise(function))


def _is_own(function: Any) -> bool:
    """Whether a function is none of Keras's activations, which a config holds by name."""
    if function is None or not callable(function) or isinstance(function, (keras.Layer, type)):
        return False
    namesake = _namesake(function)
    if namesake is not None:
        # Keras takes a function of TensorFlow for its own of that name.
        return not (namesake is function or function.__module__.startswith("tensorflow."))
    if _is_registered(function):
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


def _is_registered(function: Any) -> bool:
    """Whether Keras can find a function again by the name in a file."""
    if not isinstance(function, types.FunctionType) or _namesake(function) is not None:
        return False
    return keras.saving.get_registered_object(_registered_name(function)) is function


def _registered_name(function: Any) -> str:
    return str(keras.saving.get_registered_name(function))


def _is_elementwise(function: Any) -> bool:
    """Whether tracing shows that a function treats each number on its own."""
    from saikei.graph.retrace import UntraceableError, trace

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


def _label(function: Any) -> str:
    """A name for a function that is the same for the same code with the same settings."""
    if _is_registered(function):
        return _registered_name(function)
    name = getattr(function, "__name__", type(function).__name__)
    digest = zlib.crc32(repr(_what_it_is(function)).encode())
    return f"{digest:08x}>{name}"


def _what_it_is(function: Any) -> Any:
    if isinstance(function, functools.partial):
        return _what_it_is(function.func), function.args, sorted(function.keywords.items())
    if isinstance(function, types.FunctionType):
        cells = [cell.cell_contents for cell in function.__closure__ or ()]
        return marshal.dumps(function.__code__), function.__defaults__, cells
    return type(function), sorted(getattr(function, "__dict__", {}).items())


def _holders(layer: Any) -> Iterator[tuple[dict[str, Any], str, Any]]:
    """Where the layers of Keras within a layer hold functions that are not Keras's."""
    for part in internals.flattened_layers(layer):
        if not type(part).__module__.startswith("keras."):
            continue
        for name in _NAMES:
            function = vars(part).get(name)
            if _is_own(function):
                yield vars(part), name, function


@contextmanager
def named(layer: Any) -> Iterator[None]:
    """While a layer gives its config, its own functions go by names that rules understand."""
    found = list(_holders(layer))
    try:
        for attributes, name, function in found:
            attributes[name] = _stand_in(function)
        yield
    finally:
        for attributes, name, function in found:
            attributes[name] = function


def _stand_in(function: Any) -> Any:
    def stand_in(x: Any) -> Any:
        return function(x)

    stand_in.__name__ = f"{ELEMENTWISE if _is_elementwise(function) else OWN}{_label(function)}"
    return stand_in


@contextmanager
def at_hand(layer: Any) -> Iterator[None]:
    """While a layer is made again from its config, functions and `Lambda`s of it are found."""
    functions = {
        prefix + _label(function): function
        for _, _, function in _holders(layer)
        for prefix in (ELEMENTWISE, OWN)
    }
    with (
        keras.saving.custom_object_scope({**named_functions(layer), **functions}),
        _lambdas_at_hand(layer),
    ):
        yield


def named_functions(layer: Any) -> dict[str, Any]:
    """The functions that a layer holds, by the names under which Keras looks for them.

    Those of layers of Keras are activations and what a `Lambda` calls; those of other classes
    are all functions among their attributes.
    """
    found = [function for _, _, function in _holders(layer)]
    for part in internals.flattened_layers(layer):
        if type(part) is keras.layers.Lambda or not type(part).__module__.startswith("keras."):
            found += vars(part).values()
    functions = (one for one in found if isinstance(one, types.FunctionType))
    return {_registered_name(function): function for function in functions}


def unsavable(layer: Any) -> str | None:
    """What a layer holds that no file can, such as a lambda; `None` where there is nothing."""
    found = [function for _, _, function in _holders(layer)]
    lambdas = [p for p in internals.flattened_layers(layer) if type(p) is keras.layers.Lambda]
    for function in (*found, *(part.function for part in lambdas)):
        if not isinstance(function, types.FunctionType):
            return type(function).__name__
        if function.__name__ == "<lambda>":
            return "lambda"
    return None


@contextmanager
def _lambdas_at_hand(layer: Any) -> Iterator[None]:
    parts = internals.flattened_layers(layer)
    lambdas = {part.name: part for part in parts if type(part) is keras.layers.Lambda}
    if not lambdas:
        yield
        return
    cls = keras.layers.Lambda
    usual = vars(cls)["from_config"]

    def from_config(cls: Any, config: Any, *args: Any, **kwargs: Any) -> Any:
        source = layer if type(layer) is cls else lambdas.get(config["name"])
        if source is None:
            return usual.__get__(None, cls)(config, *args, **kwargs)
        return internals.another_lambda(source, config["name"])

    cls.from_config = classmethod(from_config)
    try:
        yield
    finally:
        cls.from_config = usual
