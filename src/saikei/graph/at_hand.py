"""Functions and classes of the process's own, at hand where Keras knows only their names.

Keras writes only the name of a function that is not its own into a layer's config, or nothing that
it can read again. In the process that the function lives in, it is used as it is: the config gets a
name that tells what is known of the function, and it is looked up by that name when the layer is
made again. So are initialisers, regularisers, constraints, cells and layers within layers.
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

from saikei.graph import internals
from saikei.graph.own_functions import is_elementwise, is_own, is_registered, registered_name
from saikei.rules.activations import ELEMENTWISE, OWN

_SETTINGS = ("activation", "initializer", "regularizer", "constraint")


@contextmanager
def named(layer: Any) -> Iterator[None]:
    """While a layer gives its config, its own functions go by names that rules understand."""
    found = list(_holders(layer))
    try:
        for attributes, name, function in found:
            attributes[name] = _stand_in(name, function)
        yield
    finally:
        for attributes, name, function in found:
            attributes[name] = function


@contextmanager
def at_hand(layer: Any) -> Iterator[None]:
    """While a layer is made again from its config, its functions and classes are found."""
    functions = {
        prefix + _label(function): function
        for _, _, function in _holders(layer)
        for prefix in (ELEMENTWISE, OWN)
    }
    with (
        keras.saving.custom_object_scope({**own_objects(layer), **functions}),
        _lambdas_at_hand(layer),
    ):
        yield


def own_objects(layer: Any) -> dict[str, Any]:
    """The functions and classes that are not Keras's in a layer, by the names that Keras uses.

    Args:
        layer: the layer; what it holds as attributes, and the layers in it, are looked at.
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
    """What a layer holds that no file can, such as a lambda; `None` where there is nothing."""
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
        if not type(part).__module__.startswith("keras."):
            continue
        for name, value in list(vars(part).items()):
            if name.endswith(_SETTINGS) and _is_function(name, value):
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
