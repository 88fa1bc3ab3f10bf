"""Functions and classes that are not Keras's own, such as `Dense(4, activation=lambda x: ...)`.

What an activation function does is traced. Where a layer applies its activation last, the graph
holds the operations that the function calls behind the layer.

Into a layer's config Keras writes only the name of a function that is not its own, or nothing that
it can read again. In the process that defines the function, it is used directly: the config gets a
name that states what is known of the function, and the function is found under that name when the
layer is made again. Initialisers, regularisers, constraints, cells and layers within layers are
treated in the same way.
"""

from __future__ import annotations

import functools
import inspect
import marshal
import types
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np

from saikei.graph import internals
from saikei.graph.kinds import keras_class, kind_of
from saikei.graph.retrace import trace
from saikei.graph.untraceable import UntraceableError
from saikei.rules import find_rule
from saikei.rules.activations import ELEMENTWISE, OWN, elementwise, mixes_channels
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
        function: Function of one tensor.
        name: Name of the layer.
        dtype: Dtype policy of the layer.
    """

    def __init__(self, function: Any, name: str, dtype: Any) -> None:
        super().__init__(name=name, dtype=dtype)
        self.function = function
        self.built = True

    def call(self, inputs: Any) -> Any:
        """The result of the function."""
        return self.function(inputs)


def is_traceable(operation: Any) -> bool:
    """Whether a layer has a `call` that only tracing shows, as the steps that it takes."""
    kind = kind_of(operation)
    if kind == "Lambda":
        return True
    if kind == "Activation":
        return _is_taken_apart(operation)
    if isinstance(operation, keras.layers.Pipeline):
        # It calls the layers in it one after the other.
        return True
    return internals.overrides_call(operation) and find_rule(kind) is None


def apart(layer: Any) -> tuple[Any, Any] | None:
    """A layer without its activation, and the activation, where tracing shows what that does.

    Returns:
        The layer with a linear activation, with the same variables, and a layer that applies the
        activation; `None` where the layer keeps its activation.
    """
    if kind_of(layer) not in _LAST or not _is_taken_apart(layer):
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
    """The layer that `apart` has split an activation from; any other operation itself."""
    return vars(operation).get("_taken_from", operation)


def _is_taken_apart(layer: Any) -> bool:
    """Whether a layer's activation cannot be kept as a setting in its config."""
    if keras_class(layer) is None:
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
    """Whether a function is not one of Keras's activations, which a config holds by name."""
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
    kind = kind_of(step.operation)
    rule = find_rule(kind)
    leaves = keras.tree.flatten((step.args, step.kwargs))
    scalars = all(isinstance(x, keras.KerasTensor) or np.ndim(x) == 0 for x in leaves)
    shapes = {tuple(tensor.shape) for tensor in (*step.inputs(), *step.outputs)}
    known = kind in MERGES or (rule is not None and rule.flow is elementwise)
    return known and scalars and shapes == {(None, None)}


_FUNCTION_SETTINGS = ("activation", "initializer", "regularizer", "constraint")


@contextmanager
def named_functions(layer: Any) -> Iterator[None]:
    """Within the block, the layer's config holds names that rules understand for own functions."""
    found = list(_holders(layer))
    try:
        for attributes, name, function in found:
            attributes[name] = _stand_in(name, function)
        yield
    finally:
        for attributes, name, function in found:
            attributes[name] = function


@contextmanager
def found_functions(layer: Any) -> Iterator[None]:
    """Within the block, Keras finds a layer's own functions and classes by the names in its config.

    It is for making the layer again, from the config that it has within `named_functions`.
    """
    functions = {
        prefix + _label(function): function
        for _, _, function in _holders(layer)
        for prefix in (ELEMENTWISE, OWN)
    }
    with (
        keras.saving.custom_object_scope({**own_objects(layer), **functions}),
        _found_lambdas(layer),
    ):
        yield


def own_objects(layer: Any) -> dict[str, Any]:
    """The functions and classes that are not Keras's in a layer, by the names that Keras uses.

    Args:
        layer: The layer; its attributes and the layers in it are searched.
    """
    found: dict[str, Any] = {}
    for part in internals.flattened_layers(layer):
        for value in (part, *vars(part).values()):
            thing = value if inspect.isfunction(value) else type(value)
            described = thing is value or hasattr(thing, "get_config")
            if described and not thing.__module__.startswith("keras."):
                found[registered_name(thing)] = thing
    return found


def unsavable(layer: Any) -> str | None:
    """A kind of object in a layer that cannot be saved, such as a lambda; `None` for none."""
    found = [function for _, _, function in _holders(layer)]
    lambdas = [p for p in internals.flattened_layers(layer) if type(p) is keras.layers.Lambda]
    for function in (*found, *(part.function for part in lambdas)):
        if not isinstance(function, types.FunctionType):
            return type(function).__name__
        if function.__name__ == "<lambda>":
            return "lambda"
    return None


def _holders(layer: Any) -> Iterator[tuple[dict[str, Any], str, Any]]:
    """Where the layers of Keras within a layer hold functions that are not Keras's."""
    for part in internals.flattened_layers(layer):
        if keras_class(part) is None:
            continue
        for name, value in list(vars(part).items()):
            if name.endswith(_FUNCTION_SETTINGS) and _is_function(name, value):
                yield vars(part), name, value


def _is_function(name: str, value: Any) -> bool:
    if name.endswith("activation"):
        return is_own(value)
    if isinstance(value, types.FunctionType):
        return not value.__module__.startswith("keras.")
    return callable(value) and not hasattr(value, "get_config")


def _stand_in(name: str, function: Any) -> Any:
    def stand_in(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    known = name.endswith("activation") and is_elementwise(function)
    stand_in.__name__ = f"{ELEMENTWISE if known else OWN}{_label(function)}"
    return stand_in


def _label(function: Any) -> str:
    """A name for a function that is the same for the same code with the same settings."""
    if is_registered(function):
        return registered_name(function)
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


@contextmanager
def _found_lambdas(layer: Any) -> Iterator[None]:
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
