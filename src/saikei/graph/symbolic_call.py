"""Run a layer's `call` on symbolic tensors, with stand-ins for variables and `keras.ops`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

import keras
from keras.src.backend.common.keras_tensor import any_symbolic_tensors

from saikei.graph import internals
from saikei.graph.symbolic_ops import FUNCTIONS, METHODS, activation_swaps

# The dict that holds an attribute, the attribute's name, and its old and new value.
_Swap: TypeAlias = tuple[dict[str, Any], str, Any, Any]


@contextmanager
def symbolic_body(
    layer: Any,
    stand_in: Any,
    lift: Any,
    backend_name: str,
    inside: bool = False,
) -> Iterator[list[Any]]:
    """Within the block, calling the layer runs its `call` on the symbolic tensors.

    While it runs, attributes of the layer, and of those in it, that hold variables hold
    stand-ins, and changes and reads of other variables are noted. Layers in it are called as
    usual; where Keras cannot compute what they return, their `call` is run too.

    Args:
        layer: The layer that is called.
        stand_in: Function from a variable to the symbolic tensor that replaces it.
        lift: Function from a constant that a layer with weights is called on to a symbolic tensor.
        backend_name: Name that Keras returns when the layer asks for the backend.
        inside: Whether to run the `call` of layers in it too, even where these declare the shape
            that they return.

    Yields:
        A list that gets `(what call returned, what it did besides)`. The tensors that the layer
        itself returns are others, so that what made the inner ones is not forgotten.
    """
    caught: list[Any] = []
    swaps = [
        swap for part in internals.flattened_layers(layer) for swap in _swaps_of(part, stand_in)
    ]
    namespace = vars(keras.ops)
    swaps += [(namespace, name, namespace[name], new) for name, new in FUNCTIONS.items()]
    swaps += activation_swaps(internals.flattened_layers(layer))
    for module in (keras.config, keras.backend):
        swaps.append((vars(module), "backend", module.backend, lambda: backend_name))

    def run(*args: Any, **kwargs: Any) -> Any:
        scope = _WatchingScope()
        with scope, _swapped(swaps, lift, inside):
            outputs = layer.call(*args, **kwargs)
        caught.append((outputs, scope.side_effect()))
        return keras.tree.map_structure(_stand_in, outputs)

    with _replaced_symbolic_call(layer, run):
        yield caught


@contextmanager
def _replaced_symbolic_call(layer: Any, run: Any) -> Iterator[None]:
    layer.__dict__["symbolic_call"] = run
    try:
        yield
    finally:
        del layer.__dict__["symbolic_call"]


class _WatchingScope(keras.StatelessScope):
    """Notes what is read and changed of variables and which losses are added."""

    def __init__(self) -> None:
        super().__init__(collect_losses=True)
        self._read: Any = None

    def get_current_value(self, variable: Any) -> Any:
        if self._read is None:
            self._read = variable
        return super().get_current_value(variable)

    def side_effect(self) -> str | None:
        if self.losses:
            return "it adds a loss"
        if self.state_mapping:
            return "it changes its own state"
        if self._read is not None:
            return f"it computes with the weight '{self._read.path}' outside of keras.ops"
        return None


def _stand_in(tensor: Any) -> Any:
    if not isinstance(tensor, keras.KerasTensor):
        return tensor
    return keras.KerasTensor(tensor.shape, dtype=tensor.dtype)


@contextmanager
def _swapped(swaps: list[_Swap], lift: Any, inside: bool) -> Iterator[None]:
    """Put stand-ins in the place of variables, except while another layer is called."""
    original = keras.Layer.__call__
    usual = {name: getattr(keras.KerasTensor, name) for name in METHODS}

    def call(layer: Any, *args: Any, **kwargs: Any) -> Any:
        _assign(swaps, new=False)
        if layer.weights and not any_symbolic_tensors(args, kwargs):
            args = keras.tree.map_structure(lift, args)
        try:
            if inside and internals.overrides_call(layer):
                return _run_inside(layer, original, swaps, args, kwargs)
            return original(layer, *args, **kwargs)
        except Exception:
            if inside or not internals.overrides_call(layer):
                raise
            return _run_inside(layer, original, swaps, args, kwargs)
        finally:
            _assign(swaps, new=True)

    _assign(swaps, new=True)
    keras.Layer.__call__ = call
    for name, method in usual.items():
        setattr(keras.KerasTensor, name, METHODS[name](method))
    try:
        yield
    finally:
        for name, method in usual.items():
            setattr(keras.KerasTensor, name, method)
        keras.Layer.__call__ = original
        _assign(swaps, new=False)


class _ReturnedError(BaseException):
    """Carries what a `call` returned past the bookkeeping that would come after it."""

    def __init__(self, outputs: Any) -> None:
        super().__init__()
        self.outputs = outputs


def _run_inside(layer: Any, original: Any, swaps: list[_Swap], args: Any, kwargs: Any) -> Any:
    """What the layer's `call` returns, with its steps a part of those of the surrounding one."""

    def run(*args: Any, **kwargs: Any) -> Any:
        _assign(swaps, new=True)
        try:
            raise _ReturnedError(layer.call(*args, **kwargs))
        finally:
            _assign(swaps, new=False)

    with _replaced_symbolic_call(layer, run):
        try:
            return original(layer, *args, **kwargs)
        except _ReturnedError as returned:
            return returned.outputs


def _assign(swaps: list[_Swap], new: bool) -> None:
    for attributes, name, old_value, new_value in swaps:
        attributes[name] = new_value if new else old_value


def _swaps_of(layer: Any, stand_in: Any) -> Iterator[_Swap]:
    hidden = ("_trainable_variables", "_non_trainable_variables")
    for name, value in vars(layer).items():
        if isinstance(value, keras.Variable):
            yield vars(layer), name, value, stand_in(value)
        elif name not in hidden and _holds_variables_alone(value) and value:
            yield vars(layer), name, value, _with_stand_ins(value, stand_in)


# Not left to keras.tree: it sorts the keys of dictionaries, and those of the one that a compiled
# model has of its layers cannot be.
def _holds_variables_alone(value: Any) -> bool:
    if isinstance(value, dict):
        return all(map(_holds_variables_alone, value.values()))
    if isinstance(value, (list, tuple)):
        return all(map(_holds_variables_alone, value))
    return isinstance(value, keras.Variable)


def _with_stand_ins(value: Any, stand_in: Any) -> Any:
    if isinstance(value, keras.Variable):
        return stand_in(value)
    if isinstance(value, dict):
        return {key: _with_stand_ins(part, stand_in) for key, part in value.items()}
    parts = [_with_stand_ins(part, stand_in) for part in value]
    if isinstance(value, list):
        return parts
    return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
