"""What the graph says of a Keras layer or operation: its kind, config, weights and name."""

from __future__ import annotations

import inspect
from collections.abc import Collection
from typing import Any

import keras

from saikei.graph import internals
from saikei.graph.flat import Weight


def kind_of(operation: Any) -> str:
    """The name under which rules know the class of a layer or operation."""
    cls = type(operation)
    if not cls.__module__.startswith("keras."):
        return f"{cls.__module__}.{cls.__qualname__}"
    name: str = cls.__name__
    return name if isinstance(operation, keras.Layer) else f"ops.{name}"


def unused(name: str, taken: Collection[str]) -> str:
    """The name, with a number where it is taken."""
    candidate, number = name, 0
    while candidate in taken:
        number += 1
        candidate = f"{name}_{number}"
    return candidate


def layer_config(operation: Any) -> dict[str, Any] | None:
    """What the class's `from_config` takes; `None` where it has none."""
    try:
        config = dict(operation.get_config())
    except (NotImplementedError, AttributeError, KeyError, TypeError, ValueError):
        # keras.Operation raises the first where constructor arguments cannot be serialised; the
        # others come from classes whose get_config() is wrong.
        return _common_config(operation)
    if "data_format" in config and config["data_format"] is None:
        config["data_format"] = keras.config.image_data_format()
    return {key: _unbuilt(value) for key, value in config.items()}


def _common_config(operation: Any) -> dict[str, Any] | None:
    """What every layer takes, of one whose class takes nothing else; `None` for others.

    Keras cannot tell the arguments of an `Identity` that was made with a dtype policy.
    """
    if not isinstance(operation, keras.Layer):
        return None
    parameters = list(inspect.signature(type(operation).__init__).parameters.values())[1:]
    if any(parameter.kind is not parameter.VAR_KEYWORD for parameter in parameters):
        return None
    dtype = keras.dtype_policies.serialize(operation.dtype_policy)
    return {"name": operation.name, "trainable": operation.trainable, "dtype": dtype}


def _unbuilt(config: Any) -> Any:
    """The config of a layer within a layer without the shapes that it was built for.

    They would be the old ones once a layer before it is cut.
    """
    if not isinstance(config, dict) or "class_name" not in config:
        return config
    return {key: _unbuilt(value) for key, value in config.items() if key != "build_config"}


def weights_of(operation: Any) -> dict[str, Weight]:
    """Its weights by name, in saving order."""
    weights: dict[str, Weight] = {}
    for variable in internals.own_weights(operation):
        name = _weight_name(operation, variable.path)
        base, number = name, 0
        while name in weights:
            number += 1
            name = f"{base}#{number}"
        weights[name] = Weight(
            id(variable), tuple(variable.shape), variable, bool(variable.trainable)
        )
    return weights


def _weight_name(operation: Any, path: str) -> str:
    """`"kernel"` for `"outer/conv/kernel"` of the layer `conv`."""
    own = f"{getattr(operation, 'path', None)}/"
    if path.startswith(own):
        return path.removeprefix(own)
    parts, layer = path.split("/"), operation.name
    inner = parts[parts.index(layer) + 1 :] if layer in parts else parts[-1:]
    return "/".join(inner) or path
