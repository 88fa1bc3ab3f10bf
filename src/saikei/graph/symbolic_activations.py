"""Activation functions that Keras cannot call on symbolic tensors, in operations that it can.

`keras.activations.mish`, `hard_silu` and its other name `hard_swish` call the backend at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import keras

_HARD_SILU, _MISH = keras.activations.hard_silu, keras.activations.mish


def _hard_silu(x: Any) -> Any:
    return keras.ops.hard_silu(x) if isinstance(x, keras.KerasTensor) else _HARD_SILU(x)


def _mish(x: Any) -> Any:
    if not isinstance(x, keras.KerasTensor):
        return _MISH(x)
    return keras.ops.multiply(x, keras.ops.tanh(keras.ops.softplus(x)))


_STAND_INS: dict[Callable[..., Any], Callable[..., Any]] = {_HARD_SILU: _hard_silu, _MISH: _mish}


def activation_swaps(layers: list[Any]) -> Iterator[tuple[dict[str, Any], str, Any, Any]]:
    """Where such a function stands by name, as `(attributes, name, function, stand-in)`.

    Args:
        layers: whose attributes are looked at, besides `keras.activations`.
    """
    for attributes in (vars(keras.activations), *map(vars, layers)):
        for name, value in attributes.items():
            try:
                new = _STAND_INS.get(value)
            except TypeError:
                continue  # No function: it cannot be looked up.
            if new is not None:
                yield attributes, name, value, new
