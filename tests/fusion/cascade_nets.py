"""Small classifiers for cascades: each knows the truth up to some noise."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers as L

CLASSES = 4
PROJECTION = np.random.default_rng(9).normal(size=(8, CLASSES)).astype("float32")


def rows(n: int = 400, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, 8)).astype("float32")


def labels(x: np.ndarray) -> np.ndarray:
    return (x @ PROJECTION).argmax(axis=1)


def member(noise: float, width: int = 0, seed: int = 0, end: str = "softmax") -> keras.Model:
    """Knows the true projection up to noise; `width` only adds MACs."""
    generator = np.random.default_rng([seed, width])
    wide = [L.Dense(width, use_bias=False, name="wide")] if width else []
    head = L.Dense(CLASSES, activation=end, name="head")
    model = keras.Sequential([keras.Input((8,)), *wide, head], name=f"noise_{round(100 * noise)}")
    kernel = PROJECTION + noise * generator.normal(size=PROJECTION.shape)
    if width:
        basis = np.eye(8, width)
        model.get_layer("wide").set_weights([basis])
        kernel = basis.T @ kernel
    head.set_weights([kernel, np.zeros(CLASSES)])
    return model


def members() -> list[keras.Model]:
    return [member(0.8, seed=1), member(0.4, 16, seed=2), member(0.05, 64, seed=3)]


def predicted(model: keras.Model, x: Any, **how: Any) -> np.ndarray:
    if type(model).predict is keras.Model.predict and not how:
        return np.asarray(keras.tree.flatten(model.predict_on_batch(x))[0])
    return np.asarray(keras.tree.flatten(model.predict(x, verbose=0, **how))[0])
