"""Activation functions as values, in whatever form a model has them."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from saikei.errors import EditError

_NAMES = (
    "relu relu6 leaky_relu prelu elu celu selu gelu silu mish hard_silu sigmoid hard_sigmoid "
    "log_sigmoid sparse_sigmoid tanh hard_tanh tanh_shrink softplus sparse_plus squareplus "
    "softsign soft_shrink hard_shrink threshold exponential linear softmax log_softmax sparsemax"
)

# Parameters and their defaults, as in keras.activations. PReLU's `alpha` of None is settled when
# it is known which function it replaces.
PARAMETERS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        **{name: {} for name in _NAMES.split()},
        "relu": {"negative_slope": 0.0, "max_value": None, "threshold": 0.0},
        "leaky_relu": {"negative_slope": 0.2},
        "prelu": {"alpha": None, "shared_axes": None},
        "elu": {"alpha": 1.0},
        "celu": {"alpha": 1.0},
        "gelu": {"approximate": False},
        "squareplus": {"b": 4.0},
        "soft_shrink": {"threshold": 0.5},
        "hard_shrink": {"threshold": 0.5},
        "threshold": {"threshold": None, "default_value": None},
        "softmax": {"axis": -1},
        "log_softmax": {"axis": -1},
        "sparsemax": {"axis": -1},
    }
)

_ALIASES = {"swish": "silu", "hard_swish": "hard_silu"}

# Layers, `keras.ops` operations and objects given as `activation=` go by their class.
_CLASSES = {
    "Relu": "relu",
    "ReLU": "relu",
    "Relu6": "relu6",
    "LeakyRelu": "leaky_relu",
    "LeakyReLU": "leaky_relu",
    "PReLU": "prelu",
    "Elu": "elu",
    "ELU": "elu",
    "Celu": "celu",
    "Selu": "selu",
    "Gelu": "gelu",
    "Silu": "silu",
    "Mish": "mish",
    "HardSilu": "hard_silu",
    "Sigmoid": "sigmoid",
    "HardSigmoid": "hard_sigmoid",
    "LogSigmoid": "log_sigmoid",
    "SparseSigmoid": "sparse_sigmoid",
    "Tanh": "tanh",
    "HardTanh": "hard_tanh",
    "TanhShrink": "tanh_shrink",
    "Softplus": "softplus",
    "SparsePlus": "sparse_plus",
    "Squareplus": "squareplus",
    "Softsign": "softsign",
    "SoftShrink": "soft_shrink",
    "HardShrink": "hard_shrink",
    "Threshold": "threshold",
    "Softmax": "softmax",
    "LogSoftmax": "log_softmax",
    "Sparsemax": "sparsemax",
}

NORMALISING = frozenset({"softmax", "log_softmax", "sparsemax"})
BOUNDED = frozenset(
    {"sigmoid", "hard_sigmoid", "sparse_sigmoid", "tanh", "hard_tanh", "softsign", "relu6"}
)


@dataclass(frozen=True)
class Function:
    """An activation function with all its parameters, in one form however it was written.

    Args:
        name: Its name in `keras.activations`, or `"prelu"`; anything else is a user's own function.
        parameters: Every parameter that the function has.
    """

    name: str
    parameters: Mapping[str, Any]

    @property
    def known(self) -> bool:
        """Whether it is one of Keras's."""
        return self.name in PARAMETERS

    @property
    def bounded(self) -> bool:
        """Whether its values are between two constants, as those of a gate are."""
        return self.name in BOUNDED or self.parameters.get("max_value") is not None

    @property
    def plain(self) -> bool:
        """Whether its parameters are the defaults, so that its name is a valid `activation=`."""
        if self.name in ("prelu", "threshold"):
            return False
        return self.known and dict(self.parameters) == dict(PARAMETERS[self.name])

    def __str__(self) -> str:
        """The name, with the parameters that are not the usual ones."""
        usual = PARAMETERS.get(self.name, {})
        shown = [f"{k}={v}" for k, v in self.parameters.items() if usual.get(k) != v]
        return f"{self.name}({', '.join(shown)})" if shown else self.name


def function(name: str, parameters: Mapping[str, Any]) -> Function:
    """The function of a name with the given parameters, in its one form.

    `relu` with a slope is `leaky_relu`, with a maximum of 6 it is `relu6`, and so on.
    """
    name = canonical_name(name)
    values = {**PARAMETERS[name], **parameters}
    if name == "relu" and not values["threshold"]:
        if values["max_value"] == 6 and not values["negative_slope"]:
            return Function("relu6", {})
        if values["max_value"] is None and values["negative_slope"]:
            return Function("leaky_relu", {"negative_slope": values["negative_slope"]})
    if name == "leaky_relu" and not values["negative_slope"]:
        return Function("relu", dict(PARAMETERS["relu"]))
    return Function(name, values)


def canonical_name(name: str) -> str:
    """`"silu"` for `"swish"`."""
    return _ALIASES.get(name, name)


def function_of_class(cls: str, config: Mapping[str, Any] | None) -> Function | None:
    """The function that a layer or operation of a class computes; `None` if it is none."""
    name = _CLASSES.get(cls)
    if name is None:
        return None
    config = config or {}
    parameters = {key: config[key] for key in PARAMETERS[name] if key in config}
    return function(name, parameters)


def function_of_argument(activation: Any) -> Function:
    """The function in an `activation=` entry of a config: a name, nothing, or an object."""
    if activation is None:
        return function("linear", {})
    if isinstance(activation, str):
        if canonical_name(activation) in PARAMETERS:
            return function(activation, {})
        return Function(activation, {})
    config = activation.get("config") if isinstance(activation, Mapping) else None
    if isinstance(config, Mapping) and str(activation.get("module", "")).startswith("keras"):
        found = function_of_class(str(activation.get("class_name")), config)
        # The weights of a PReLU that is held as an argument belong to the layer around it.
        if found is not None and found.name != "prelu":
            return found
    return Function(_own_name(activation), {})


def _own_name(activation: Any) -> str:
    if not isinstance(activation, Mapping):
        return str(activation)
    config = activation.get("config")
    name = config if isinstance(config, str) else activation.get("class_name")
    # A registered function goes by "package>name".
    return str(name or "a function without a name").rsplit(">", 1)[-1]


def asked_function(edit: str, name: str, parameters: Mapping[str, Any]) -> Function:
    """The function that an edit's arguments ask for.

    Raises:
        EditError: When there is no such function, or it has no such parameter.
    """
    if canonical_name(name) not in PARAMETERS:
        if name == "glu":
            raise EditError(
                f"{edit}: 'glu' halves the channels, so it cannot replace an "
                "activation: use another, such as 'silu'."
            )
        near = difflib.get_close_matches(str(name), [*PARAMETERS, *_ALIASES], n=1, cutoff=0.0)
        raise EditError(f"{edit}: unknown activation {name!r}, did you mean '{near[0]}'?")
    name = canonical_name(name)
    for key, value in parameters.items():
        if key not in PARAMETERS[name]:
            known = ", ".join(PARAMETERS[name]) or "none"
            raise EditError(f"{edit}: '{name}' has no parameter '{key}'; it has {known}.")
        _check_value(edit, name, key, value)
    if name == "threshold" and set(parameters) != set(PARAMETERS["threshold"]):
        raise EditError(f"{edit}: 'threshold' needs both threshold=… and default_value=….")
    return function(name, parameters)


def _check_value(edit: str, name: str, key: str, value: Any) -> None:
    if key == "shared_axes":
        if value is None or (
            isinstance(value, (tuple, list)) and all(isinstance(a, int) and a > 0 for a in value)
        ):
            return
        raise EditError(f"{edit}: shared_axes={value!r} has to be a tuple of axes from 1 on.")
    if key == "approximate":
        if isinstance(value, bool):
            return
        raise EditError(f"{edit}: approximate={value!r} has to be True or False.")
    if value is None and PARAMETERS[name][key] is None and name != "threshold":
        return
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise EditError(f"{edit}: {key}={value!r} of '{name}' has to be a number.")
