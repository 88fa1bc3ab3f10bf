"""Adam, made so that it works in the precision of a model."""

from __future__ import annotations

from typing import Any

import keras

from saikei.graph.internals import flattened_layers

# In float16 the square of a small gradient is 0, and a division by Keras's 1e-7 overflows.
_EPSILON_IN_HALF = 1e-3
# Gradients below 6e-8 are 0 in float16; losses are scaled by as much as does not overflow.
_FIRST_SCALE = 2.0**10


def adam(model: keras.Model, learning_rate: Any) -> keras.optimizers.Optimizer:
    """Adam for a model, with its loss scaled where a layer computes in float16.

    Keras scales it by itself only where all of a model has the policy `"mixed_float16"`.

    Args:
        model: what is trained.
        learning_rate: a number or a schedule.
    """
    stored = {str(variable.dtype) for variable in model.trainable_variables}
    computed = {layer.compute_dtype for layer in flattened_layers(model)}
    if "float16" not in stored | computed:
        return keras.optimizers.Adam(learning_rate)
    epsilon = _EPSILON_IN_HALF if "float16" in stored else keras.config.epsilon()
    return keras.optimizers.LossScaleOptimizer(
        keras.optimizers.Adam(learning_rate, epsilon=epsilon), initial_scale=_FIRST_SCALE
    )
