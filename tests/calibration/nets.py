"""Small networks with something odd each, with weights as after training."""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
from keras import layers as L

from saikei.testing import randomise_statistics

Data = tuple[np.ndarray, np.ndarray]


def plain() -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((8, 8, 2)),
            L.Conv2D(8, 3, activation="relu", padding="same"),
            L.MaxPooling2D(),
            L.Conv2D(12, 3, activation="relu"),
            L.Flatten(),
            L.Dense(10, activation="relu"),
            L.Dense(3, activation="softmax"),
        ]
    )


def batch_normalised() -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((8, 8, 2)),
            L.Conv2D(8, 3, use_bias=False),
            L.BatchNormalization(),
            L.ReLU(),
            L.DepthwiseConv2D(3, use_bias=False),
            L.BatchNormalization(scale=False),
            L.ReLU(),
            L.Conv2D(12, 1, use_bias=False),
            L.BatchNormalization(center=False),
            L.GlobalAveragePooling2D(),
            L.Dense(3),
        ]
    )


def residual() -> keras.Model:
    tensor = keras.Input((8, 8, 2))
    x = L.Conv2D(8, 3, padding="same")(tensor)
    for _ in range(2):
        y = L.BatchNormalization()(x)
        y = L.Conv2D(6, 3, padding="same", activation="relu")(y)
        y = L.Conv2D(8, 3, padding="same")(y)
        x = L.Add()([x, y])
    x = L.Concatenate()([L.ReLU()(x), L.Conv2D(4, 1)(x)])
    return keras.Model(tensor, L.Dense(3)(L.GlobalAveragePooling2D()(x)))


def shared() -> keras.Model:
    first, second = keras.Input((6, 4)), keras.Input((6, 4))
    encode, hidden = L.Conv1D(8, 3, activation="relu"), L.Dense(6, activation="tanh")
    a, b = (L.GlobalAveragePooling1D()(hidden(encode(x))) for x in (first, second))
    return keras.Model([first, second], L.Dense(2)(L.Concatenate()([a, L.Subtract()([a, b])])))


def two_outputs() -> keras.Model:
    tensor = keras.Input((10,))
    x = L.Dense(16, activation="relu")(tensor)
    y = L.Dense(12, activation="elu")(x)
    return keras.Model(tensor, {"one": L.Dense(1)(x), "few": L.Dense(4)(y)})


NETS: dict[str, Callable[[], keras.Model]] = {
    "plain": plain,
    "batch_normalised": batch_normalised,
    "residual": residual,
    "shared": shared,
    "two_outputs": two_outputs,
}


def made(name: str, seed: int = 0) -> keras.Model:
    keras.utils.set_random_seed(seed)
    model = NETS[name]()
    randomise_statistics(model, seed)
    return model


def data_for(model: keras.Model, count: int = 200, seed: int = 0) -> Data:
    """Smooth random inputs, with neighbours alike as in pictures; labels are not looked at."""
    generator = np.random.default_rng(seed)
    inputs = []
    for tensor in model.inputs:
        array = generator.normal(size=(count, *tensor.shape[1:]))
        for axis in range(1, array.ndim - 1):
            array = array + np.roll(array, 1, axis=axis)
        inputs.append(array.astype(np.float32))
    return (inputs if len(inputs) > 1 else inputs[0]), np.zeros(count)


def outputs_of(model: keras.Model, x: object) -> list[np.ndarray]:
    values = keras.tree.flatten(model(x, training=False))
    return [keras.ops.convert_to_numpy(value) for value in values]
