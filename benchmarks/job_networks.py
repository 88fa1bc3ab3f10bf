"""The networks of `jobs.py`: what one would train today on each kind of data, at any width."""

from __future__ import annotations

import keras
from keras import layers

Tensor = keras.KerasTensor


def widths(width: float, *filters: int) -> list[int]:
    """Numbers of filters or units, times the width and at least 1."""
    return [max(1, round(width * one)) for one in filters]


def image_resnet(width: float, seed: int) -> keras.Model:
    """Two residual blocks on 28 × 28 pixels, flipped at random; 5.7 million MACs at width 1."""
    keras.utils.set_random_seed(seed)
    a, b, c = widths(width, 16, 32, 64)
    image = keras.Input((28, 28, 1))

    def convolution(x: Tensor, filters: int, size: int, stride: int = 1) -> Tensor:
        x = layers.Conv2D(filters, size, stride, padding="same", use_bias=False)(x)
        return layers.BatchNormalization()(x)

    x = layers.RandomFlip("horizontal", seed=seed)(image)
    x = layers.ReLU()(convolution(x, a, 3))
    for filters in (b, c):
        short = convolution(x, filters, 1, 2)
        y = layers.ReLU()(convolution(x, filters, 3, 2))
        x = layers.ReLU()(layers.Add()([short, convolution(y, filters, 3)]))
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(image, layers.Dense(10, activation="softmax")(x))


def table_resnet(width: float, seed: int) -> keras.Model:
    """Two residual blocks of dense layers on 16 scaled numbers (Gorishniy et al., 2021)."""
    keras.utils.set_random_seed(seed)
    (units,) = widths(width, 160)
    table = keras.Input((16,))
    x = layers.Dense(units)(table)
    for _ in range(2):
        y = layers.BatchNormalization()(x)
        y = layers.Dropout(0.1)(layers.Dense(units, activation="relu")(y))
        x = layers.Add()([x, layers.Dense(units)(y)])
    x = layers.ReLU()(layers.BatchNormalization()(x))
    return keras.Model(table, layers.Dense(26, activation="softmax")(x))


def long_series(width: float, seed: int) -> keras.Model:
    """A fully convolutional network on 427 samples (Wang, Yan and Oates, 2017), with strides."""
    keras.utils.set_random_seed(seed)
    a, b, c = widths(width, 64, 96, 96)
    tensor = x = keras.Input((427, 1))
    for filters, size, stride in ((a, 9, 2), (b, 5, 2), (c, 3, 1)):
        x = layers.Conv1D(filters, size, stride, padding="same", use_bias=False)(x)
        x = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.GlobalAveragePooling1D()(x)
    return keras.Model(tensor, layers.Dense(6, activation="softmax")(x))


def channels_gru(width: float, seed: int) -> keras.Model:
    """A bidirectional GRU on up to 29 steps of 12 channels; steps of zeros are masked."""
    keras.utils.set_random_seed(seed)
    units, hidden = widths(width, 48, 64)
    tensor = keras.Input((29, 12))
    x = layers.Masking()(tensor)
    x = layers.Bidirectional(layers.GRU(units, return_sequences=True))(x)
    x = layers.Dropout(0.2)(layers.GlobalAveragePooling1D()(x))
    x = layers.Dense(hidden, activation="relu")(x)
    return keras.Model(tensor, layers.Dense(9, activation="softmax")(x))


def text_cnn(width: float, seed: int, tokens: int, length: int, classes: int) -> keras.Model:
    """An embedding and two convolutions on token ids (Kim, 2014)."""
    keras.utils.set_random_seed(seed)
    ids = keras.Input((length,), dtype="int32")
    x = layers.Dropout(0.3)(_text_features(ids, width, tokens))
    return keras.Model(ids, layers.Dense(classes, activation="softmax")(x))


def text_and_table(
    width: float, seed: int, tokens: int, length: int, columns: int, classes: int
) -> keras.Model:
    """The features of a text beside those of a table, of which either may be missing."""
    keras.utils.set_random_seed(seed)
    (units,) = widths(width, 64)
    ids = keras.Input((length,), dtype="int32", name="text")
    table = keras.Input((columns,), name="table")
    numbers = layers.Dense(units, activation="relu")(table)
    numbers = layers.Dense(units, activation="relu")(layers.Dropout(0.1)(numbers))
    x = layers.Concatenate()([_text_features(ids, width, tokens), numbers])
    x = layers.Dense(units, activation="relu")(layers.Dropout(0.3)(x))
    outputs = layers.Dense(classes, activation="softmax")(x)
    return keras.Model({"text": ids, "table": table}, outputs)


def _text_features(ids: Tensor, width: float, tokens: int) -> Tensor:
    """The largest values over a text of two convolutions over its embedded tokens."""
    size, a, b = widths(width, 32, 64, 64)
    x = layers.Embedding(tokens, size)(ids)
    x = layers.Conv1D(a, 5, padding="same", activation="relu")(x)
    x = layers.Conv1D(b, 3, padding="same", activation="relu")(layers.MaxPooling1D(4)(x))
    return layers.GlobalMaxPooling1D()(x)
