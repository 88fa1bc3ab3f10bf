"""Gradients of a loss by the weights: the only code that differs between backends."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from saikei.tensors import to_floats

Array = NDArray[Any]
# From the model's flat outputs and the labels to a scalar.
Loss = Callable[[list[Any], Any], Any]


def weight_gradients(
    model: keras.Model, loss: Loss, of: Sequence[Any] | None = None
) -> Callable[[Any, Any], list[Array]]:
    """A function from a batch to the gradient by each of `model.weights`.

    Trained and frozen weights alike have gradients; the model runs as at inference and is not
    changed. The gradient by whole numbers, as of a quantised kernel, is 0.

    Args:
        model: A built model.
        loss: From the flat outputs and the labels to a scalar.
        of: The weights that gradients are taken by; those by all others are 0. `None` for all.
    """
    makers = {"tensorflow": _tensorflow, "jax": _jax, "torch": _torch}
    wanted = {id(weight) for weight in (model.weights if of is None else of)}
    floating = [
        w for w in model.weights if id(w) in wanted and keras.backend.is_float_dtype(w.dtype)
    ]
    gradients = makers[keras.backend.backend()](model, floating, loss)

    def numpy_gradients(x: Any, y: Any) -> list[Array]:
        found = gradients(x, y)
        return [
            np.zeros(weight.shape, np.float32)
            if gradient is None
            else np.asarray(to_floats(gradient), np.float32)
            for weight, gradient in zip(model.weights, found, strict=True)
        ]

    return numpy_gradients


def _for_all(model: keras.Model, floating: list[Any], found: Any) -> list[Any]:
    """A gradient for each weight of the model, `None` for those without."""
    of = {id(weight): gradient for weight, gradient in zip(floating, found, strict=True)}
    return [of.get(id(weight)) for weight in model.weights]


def _tensorflow(
    model: keras.Model, floating: list[Any], loss: Loss
) -> Callable[[Any, Any], list[Any]]:
    import tensorflow as tf

    variables = [weight.value for weight in floating]

    @tf.function(reduce_retracing=True)
    def gradients(x: Any, y: Any) -> Any:
        # Frozen variables are not watched by themselves.
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(variables)
            value = loss(keras.tree.flatten(model(x, training=False)), y)
        # An embedding's gradient comes as rows.
        return [
            None if g is None else tf.convert_to_tensor(g) for g in tape.gradient(value, variables)
        ]

    return lambda x, y: _for_all(model, floating, gradients(x, y))


def _jax(model: keras.Model, floating: list[Any], loss: Loss) -> Callable[[Any, Any], list[Any]]:
    import jax

    index = {id(weight): position for position, weight in enumerate(floating)}

    def value(values: list[Any], x: Any, y: Any) -> Any:
        trained = [
            values[index[id(v)]] if id(v) in index else v.value for v in model.trainable_variables
        ]
        others = [
            values[index[id(v)]] if id(v) in index else v.value
            for v in model.non_trainable_variables
        ]
        outputs, _ = model.stateless_call(trained, others, x, training=False)
        return loss(keras.tree.flatten(outputs), y)

    gradients = jax.jit(jax.grad(value))
    return lambda x, y: _for_all(
        model, floating, gradients([weight.value for weight in floating], x, y)
    )


def _torch(model: keras.Model, floating: list[Any], loss: Loss) -> Callable[[Any, Any], list[Any]]:
    import torch

    values = [weight.value for weight in floating]

    def gradients(x: Any, y: Any) -> list[Any]:
        needed = [value.requires_grad for value in values]
        for value in values:
            value.requires_grad_(True)
        try:
            with torch.enable_grad():
                result = loss(keras.tree.flatten(model(x, training=False)), y)
            found = torch.autograd.grad(result, values, allow_unused=True)
            return _for_all(model, floating, found)
        finally:
            for value, need in zip(values, needed, strict=True):
                value.requires_grad_(need)

    return gradients
