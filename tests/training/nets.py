"""A regression network that is right by construction, and can be cut to half nearly for nothing."""

from __future__ import annotations

import keras
import numpy as np
from keras import layers


def redundant_regressor(normalised: bool = False) -> tuple[keras.Model, tuple, tuple]:
    """A network with half of its channels nearly repeating the others, and data that it fits.

    Args:
        normalised: whether there is a BatchNormalization in it.

    Returns:
        The model, training data and validation data.
    """
    rng = np.random.default_rng(0)
    keras.utils.set_random_seed(3)
    first = [layers.Conv1D(12, 3, activation="relu", padding="same")]
    model = keras.Sequential(
        [
            keras.Input((16, 2)),
            *first,
            *([layers.BatchNormalization(momentum=0.5)] if normalised else []),
            layers.Conv1D(12, 3, activation="relu", padding="same"),
            layers.Flatten(),
            layers.Dense(16, activation="relu"),
            layers.Dense(2),
        ],
        name="regressor",
    )
    for layer in model.layers:
        if isinstance(layer, layers.Conv1D):
            kernel, bias = layer.get_weights()
            scale, noise = rng.uniform(0.5, 1.5, 6), 0.02 * rng.normal(size=kernel[..., 6:].shape)
            kernel[..., 6:] = kernel[..., :6] * scale + noise
            layer.set_weights([kernel, bias])
    x = (np.cumsum(rng.normal(size=(384, 16, 2)), axis=1) / 4).astype("float32")
    for _ in range(8 if normalised else 0):
        model(x, training=True)
    kernel, bias = model.layers[-1].get_weights()
    spread = model.predict_on_batch(x).std(axis=0)
    model.layers[-1].set_weights([kernel / spread, bias / spread])
    y = model.predict_on_batch(x)
    y += 0.02 * rng.normal(size=y.shape).astype("float32")
    return model, (x[:256], y[:256]), (x[256:], y[256:])
