"""Small networks with parts that can be left out."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers as L
from keras import ops

from saikei.testing import randomise_statistics


def finished(inputs: Any, outputs: Any, seed: int = 0) -> keras.Model:
    model = keras.Model(inputs, outputs)
    randomise_statistics(model, seed)
    return model


def post_activation(blocks: int = 3) -> keras.Model:
    """ResNet as first published: a ReLU behind each sum, a projection where it narrows."""
    keras.utils.set_random_seed(0)
    x = inputs = keras.Input((8, 8, 3))
    x = L.Conv2D(4, 3, padding="same", activation="relu")(x)
    for number in range(blocks):
        y = L.Conv2D(4, 3, padding="same")(x)
        y = L.ReLU()(L.BatchNormalization()(y))
        y = L.Conv2D(4, 3, padding="same", name=f"last{number}")(y)
        x = L.ReLU()(L.Add(name=f"sum{number}")([x, y]))
    y = L.Conv2D(6, 3, strides=2, padding="same", activation="relu")(x)
    y = L.Conv2D(6, 3, padding="same", name="last_down")(y)
    short = L.BatchNormalization()(L.Conv2D(6, 1, strides=2)(x))
    x = L.ReLU()(L.Add(name="down")([y, short]))
    return finished(inputs, L.Dense(3, name="head")(L.GlobalAveragePooling2D()(x)))


class LayerScale(L.Layer):
    """A learned factor for each channel, as in ConvNeXt."""

    def build(self, input_shape: Any) -> None:
        self.gamma = self.add_weight(shape=(input_shape[-1],), initializer="ones", name="gamma")

    def call(self, inputs: Any) -> Any:
        return inputs * self.gamma


def inverted(blocks: int = 3) -> keras.Model:
    """MBConv with squeeze and excite, layer scale and stochastic depth, before the activation."""
    keras.utils.set_random_seed(0)
    x = inputs = keras.Input((8, 8, 3))
    x = L.Conv2D(4, 3, padding="same")(x)
    for number in range(blocks):
        y = L.Activation("silu")(L.BatchNormalization()(x))
        y = L.Conv2D(8, 1, activation="silu")(y)
        y = L.DepthwiseConv2D(3, padding="same", activation="silu")(y)
        gate = L.Conv2D(2, 1, activation="relu")(L.GlobalAveragePooling2D(keepdims=True)(y))
        y = L.Multiply()([y, L.Conv2D(8, 1, activation="sigmoid")(gate)])
        y = L.Conv2D(4, 1, name=f"last{number}")(y)
        y = L.Dropout(0.2, noise_shape=(None, 1, 1, 1))(LayerScale()(y))
        # As a bare operation, and the shortcut behind the branch.
        x = ops.add(y, x) if number % 2 else L.Add()([y, x])
    return finished(inputs, L.Dense(3)(L.Flatten()(x)))


def encoder(blocks: int = 2, norm_first: bool = True) -> keras.Model:
    """A transformer on tokens, some of them padding."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((5,), dtype="int32")
    # Keras's attention takes the mask off the very tensor that it reads: what adds that tensor
    # to the attention's output, as in a network that normalises last, has no mask any more.
    x = L.Embedding(11, 8, mask_zero=norm_first)(inputs)
    for number in range(blocks):
        y = L.LayerNormalization()(x) if norm_first else x
        y = L.MultiHeadAttention(2, 4, name=f"attention{number}")(y, y)
        x = L.Add(name=f"attended{number}")([x, L.Dropout(0.1)(y)])
        x = x if norm_first else L.LayerNormalization()(x)
        y = L.LayerNormalization()(x) if norm_first else x
        y = L.Dense(8, name=f"last{number}")(L.Dense(16, activation="gelu")(y))
        x = L.Add(name=f"fed{number}")([x, y])
        x = x if norm_first else L.LayerNormalization()(x)
    return finished(inputs, L.Dense(3)(L.GlobalAveragePooling1D()(x)))


def decoder() -> keras.Model:
    """Attention to itself and to another sequence, then feed-forward."""
    keras.utils.set_random_seed(0)
    x = inputs = keras.Input((5, 8))
    memory = keras.Input((4, 8))
    for number in range(2):
        x = L.Add(name=f"own{number}")([x, L.MultiHeadAttention(2, 4)(x, x)])
        x = L.Add(name=f"cross{number}")([x, L.MultiHeadAttention(2, 4)(x, memory)])
        x = L.Add(name=f"fed{number}")([x, L.Dense(8, name=f"last{number}")(x)])
    return finished([inputs, memory], L.Dense(3)(L.GlobalAveragePooling1D()(x)))


def nested() -> keras.Model:
    """Two small residual units within a large one, and one behind it."""
    keras.utils.set_random_seed(0)
    x = inputs = keras.Input((6,))
    x = start = L.Dense(6)(x)
    for number in range(2):
        y = L.Dense(6, name=f"last{number}")(L.Dense(9, activation="relu")(x))
        x = L.Add(name=f"inner{number}")([x, y])
    x = L.Add(name="outer")([start, L.Dense(6, name="last_outer")(x)])
    x = L.Add(name="behind")([x, L.Dense(6, name="last_behind")(x)])
    return finished(inputs, L.Dense(3)(x))


def plain() -> keras.Model:
    """Layers without shortcuts: some keep the shape, some only together, some not at all."""
    keras.utils.set_random_seed(0)
    x = inputs = keras.Input((8, 8, 3))
    x = L.ReLU()(L.BatchNormalization()(L.Conv2D(4, 3, padding="same", name="widens")(x)))
    x = L.ReLU()(L.BatchNormalization()(L.Conv2D(4, 3, padding="same", name="keeps")(x)))
    x = L.Conv2D(2, 1, name="narrows")(x)
    x = L.Conv2D(4, 3, padding="same", activation="relu", name="back")(x)
    x = L.Flatten()(L.Conv2D(4, 3, strides=2, name="shrinks")(x))
    x = L.Dense(3, activation="relu", name="wide")(x)
    return finished(inputs, L.Dense(3, name="head")(x))


NETS = {
    "post_activation": post_activation,
    "inverted": inverted,
    "encoder": encoder,
    "post_norm": lambda: encoder(norm_first=False),
    "decoder": decoder,
    "nested": nested,
    "plain": plain,
}


def samples(model: keras.Model, count: int = 24) -> tuple[Any, np.ndarray]:
    """Random inputs, and classes."""
    generator = np.random.default_rng(0)
    arrays = [
        generator.integers(0, 11, (count, *t.shape[1:]))
        if "int" in t.dtype
        else generator.standard_normal((count, *t.shape[1:])).astype("float32")
        for t in model.inputs
    ]
    return (arrays if len(arrays) > 1 else arrays[0]), generator.integers(0, 3, count)


def outputs(model: keras.Model) -> np.ndarray:
    return keras.ops.convert_to_numpy(model(samples(model)[0], training=False))
