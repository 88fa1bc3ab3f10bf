"""Small networks whose options are tested: one of each family."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import keras
from keras import layers


def cnn() -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((8, 8, 2)),
            layers.Conv2D(6, 3, padding="same", activation="relu", name="c1"),
            layers.AveragePooling2D(2, name="pool"),
            layers.Conv2D(6, 3, padding="same", name="c2"),
            layers.BatchNormalization(name="bn"),
            layers.ReLU(name="relu"),
            layers.Flatten(name="flat"),
            layers.Dense(10, activation="relu", name="d1"),
            layers.Dense(4, activation="softmax", name="d2"),
        ]
    )


def resnet() -> keras.Model:
    x = inputs = keras.Input((8, 8, 2))
    x = layers.Conv2D(6, 3, padding="same", activation="relu", name="stem")(x)
    for number in range(2):
        y = layers.Conv2D(8, 3, padding="same", activation="relu", name=f"a{number}")(x)
        y = layers.Conv2D(6, 1, name=f"b{number}")(y)
        x = layers.Add(name=f"add{number}")([x, y])
    x = layers.GlobalAveragePooling2D(name="gap")(x)
    return keras.Model(inputs, layers.Dense(4, activation="softmax", name="out")(x))


def transformer() -> keras.Model:
    tokens = keras.Input((6,), dtype="int32")
    x = layers.Embedding(20, 8, name="table")(tokens)
    y = layers.MultiHeadAttention(2, 4, name="attention")(x, x)
    x = layers.LayerNormalization(name="norm1")(layers.Add(name="add1")([x, y]))
    y = layers.Dense(12, activation="gelu", name="wide")(x)
    y = layers.Dense(8, name="narrow")(y)
    x = layers.LayerNormalization(name="norm2")(layers.Add(name="add2")([x, y]))
    x = layers.GlobalAveragePooling1D(name="gap")(x)
    return keras.Model(tokens, layers.Dense(4, activation="softmax", name="out")(x))


def lstm() -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((6, 3)),
            layers.LSTM(8, return_sequences=True, name="l1"),
            layers.LSTM(6, name="l2"),
            layers.Dense(8, activation="tanh", name="d1"),
            layers.Dense(1, name="out"),
        ]
    )


def two_outputs() -> keras.Model:
    inputs = keras.Input((10,))
    x = layers.Dense(12, activation="relu", name="d1")(inputs)
    x = layers.Dense(12, activation="relu", name="d2")(x)
    classes = layers.Dense(3, activation="softmax", name="classes")(x)
    return keras.Model(inputs, [classes, layers.Dense(2, name="numbers")(x)])


NETS: Mapping[str, Callable[[], keras.Model]] = {
    "cnn": cnn,
    "resnet": resnet,
    "transformer": transformer,
    "lstm": lstm,
    "two outputs": two_outputs,
}
