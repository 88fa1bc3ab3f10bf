"""A Keras layer or operation as the graph describes it: its kind, config, weights and name."""

from __future__ import annotations

import inspect
import re
from collections.abc import Collection, Iterable
from dataclasses import replace
from typing import Any

import keras

from saikei.graph import internals
from saikei.graph.flat import SPECTRAL_WEIGHT, Operation, Quantised, Spectral, Weight
from saikei.graph.kinds import keras_class, kind_of
from saikei.graph.own_functions import named_functions, registered_name
from saikei.graph.stored_weights import FloatWeight, float_twin, merged_weights, without_rank


def unused(name: str, taken: Collection[str]) -> str:
    """The name, with a number where it is taken."""
    candidate, number = name, 0
    while candidate in taken:
        number += 1
        candidate = f"{name}_{number}"
    return candidate


def layer_config(operation: Any) -> dict[str, Any] | None:
    """The config for the class's `from_config`; `None` where the layer gives none."""
    try:
        with named_functions(operation):
            config = dict(operation.get_config())
    except (NotImplementedError, AttributeError, KeyError, TypeError, ValueError, OSError):
        # keras.Operation raises the first where constructor arguments cannot be serialised; the
        # others come from classes whose get_config() is wrong.
        return _common_config(operation)
    if "data_format" in config and config["data_format"] is None:
        config["data_format"] = keras.config.image_data_format()
    return _with_known_classes(operation, {key: _unbuilt(value) for key, value in config.items()})


def _with_known_classes(operation: Any, config: dict[str, Any]) -> dict[str, Any]:
    """A config in which subclasses have the names of the layers of Keras that compute the same.

    Rules go by these names; Keras finds the subclasses by their registered names.
    """
    known = {
        registered_name(type(part)): base.__name__
        for part in internals.flattened_layers(operation)[1:]
        if (base := keras_class(part)) not in (None, type(part))
    }

    def renamed(part: Any) -> Any:
        if isinstance(part, (list, tuple)):
            return type(part)(map(renamed, part))
        if not isinstance(part, dict):
            return part
        part = {key: renamed(value) for key, value in part.items()}
        name = known.get(part.get("registered_name"))
        return part if name is None else {**part, "module": "keras.layers", "class_name": name}

    return renamed(config) if known else config


def _common_config(operation: Any) -> dict[str, Any] | None:
    """The config of a layer whose class takes only what every layer takes; `None` for others.

    Keras gives none for an `Identity` that was made with a dtype policy.
    """
    if not isinstance(operation, keras.Layer):
        return None
    parameters = list(inspect.signature(type(operation).__init__).parameters.values())[1:]
    if any(parameter.kind is not parameter.VAR_KEYWORD for parameter in parameters):
        return None
    dtype = keras.dtype_policies.serialize(operation.dtype_policy)
    return {"name": operation.name, "trainable": operation.trainable, "dtype": dtype}


def _unbuilt(config: Any) -> Any:
    """The config of layers within a layer without the shapes that they were built for.

    Once a layer before them is cut, these shapes would be wrong.
    """
    if isinstance(config, (list, tuple)) and any(isinstance(part, dict) for part in config):
        return [_unbuilt(part) for part in config]
    if not isinstance(config, dict):
        return config
    left = {"build_config"} if "class_name" in config else set()
    return {key: _unbuilt(value) for key, value in config.items() if key not in left}


def described(name: str, operation: Any, untraced: str | None = None) -> Operation:
    """A layer or operation of Keras as an operation of a graph.

    Args:
        name: Name of the operation.
        operation: The Keras object.
        untraced: Why its `call` could not be traced; `None` where it was, or had no need.
    """
    if _is_spectral(operation):
        return _spectral(name, operation)
    merged = {id(weight.base): weight for _, weight in merged_weights(operation)}
    factors = {id(v) for weight in merged.values() for v in (weight.first, weight.second)}
    config = layer_config(operation)
    own = [(v, merged.get(id(v), v)) for v in internals.own_weights(operation)]
    kind = kind_of(operation)
    quantised = _quantised(operation, kind, config)
    return Operation(
        name=name,
        kind=kind if quantised is None else f"{kind}[{quantised.mode}]",
        config=without_rank(config) if merged else config,
        weights=_weights(operation, [pair for pair in own if id(pair[0]) not in factors]),
        source=operation,
        untraced=untraced,
        quantised=quantised,
    )


def _is_spectral(operation: Any) -> bool:
    """Whether a layer is another one whose kernel it normalises in training, and nothing else."""
    if kind_of(operation) != "SpectralNormalization":
        return False
    layer = operation.layer
    names = weight_names(layer, internals.own_weights(layer))
    parts = internals.flattened_layers(layer)
    lora = any(getattr(part, "lora_enabled", False) for part in parts)
    plain = not lora and all(internals.quantisation_of(part) is None for part in parts)
    return plain and not internals.overrides_call(layer) and "kernel" in names


def _spectral(name: str, wrapper: Any) -> Operation:
    inner = described(name, wrapper.layer)
    known = {weight.key: role for role, weight in inner.weights.items()}
    weights = {
        known.get(id(variable), SPECTRAL_WEIGHT): Weight(
            id(variable), tuple(variable.shape), variable, bool(variable.trainable)
        )
        for variable in internals.own_weights(wrapper)
    }
    config = {**keras.Layer.get_config(wrapper), "power_iterations": wrapper.power_iterations}
    return replace(inner, weights=weights, spectral=Spectral(config, wrapper))


def _quantised(operation: Any, kind: str, config: dict[str, Any] | None) -> Quantised | None:
    parts = internals.flattened_layers(operation)
    modes = [mode for part in parts if (mode := internals.quantisation_of(part)) is not None]
    if not modes:
        return None
    twin = float_twin(operation, config)
    if twin is None:
        return Quantised(modes[0], kind, None, None)
    return Quantised(modes[0], kind, twin.config, _weights(operation, twin.weights))


def _weights(operation: Any, pairs: Collection[tuple[Any, Any]]) -> dict[str, Weight]:
    """Weights by name, in the order given."""
    names = weight_names(operation, [variable for variable, _ in pairs])
    return {
        name: Weight(
            id(variable), tuple(source.shape), source, _trains(operation, variable, source)
        )
        for name, (variable, source) in zip(names, pairs, strict=True)
    }


def _trains(operation: Any, variable: Any, source: Any) -> bool:
    """A frozen kernel trains by the factors merged into it, a packed one once it is unpacked."""
    packed = isinstance(source, FloatWeight)
    return bool((operation if packed else getattr(source, "first", variable)).trainable)


def weight_names(operation: Any, variables: Iterable[Any]) -> list[str]:
    """Names of weights by their place in an operation, each used once.

    A weight of the layer itself has the name that its class gives it (`"kernel"`), one of a layer
    within it begins with the attribute that holds that layer (`"forward_layer/cell/kernel"`).
    Keras's own paths cannot be used: they change when a model is saved and loaded.
    """
    roles = _roles(operation, "") if isinstance(operation, keras.Layer) else {}
    names: list[str] = []
    for variable in variables:
        name = base = roles[id(variable)]
        number = 0
        while name in names:
            number += 1
            name = f"{base}#{number}"
        names.append(name)
    return names


def _roles(layer: Any, prefix: str) -> dict[int, str]:
    """The name of each weight of a layer and of those in it, by the variable's `id`."""
    roles = {
        id(variable): prefix + own_name(attribute, variable)
        for attribute, variable in internals.held_weights(layer)
    }
    for attribute, part in internals.held_layers(layer):
        inner = _roles(part, f"{prefix}{attribute.lstrip('_')}/")
        roles = {**inner, **roles}
    return roles


def own_name(attribute: str, variable: Any) -> str:
    """The name that the class gives a weight; the attribute where Keras has made one up."""
    made_up = re.fullmatch(r"variable(_\d+)?", variable.name)
    return attribute.lstrip("_") if made_up else str(variable.name)
