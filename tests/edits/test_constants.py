"""Channels that are the same everywhere can go without a change, and without data."""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
import pytest
from keras import layers as L

from saikei import PruneChannels
from saikei.channels import map_channels
from saikei.edits.compensate import cut_and_fold
from saikei.edits.cut import cut
from saikei.graph import build, read
from saikei.testing import random_inputs, randomise_statistics

GONE = [1, 4]


def dense() -> list[keras.Layer]:
    return [keras.Input((5,)), L.Dense(6, activation="sigmoid", name="made"), L.Dense(3)]


def pooled() -> list[keras.Layer]:
    return [
        keras.Input((9, 9, 2)),
        L.Conv2D(6, 3, padding="same", activation="elu", name="made"),
        L.MaxPooling2D(padding="same"),
        L.Conv2D(4, 3, activation="relu"),
        L.Flatten(),
        L.Dense(3),
    ]


def flattened() -> list[keras.Layer]:
    return [
        keras.Input((5, 5, 2)),
        L.Conv2D(6, 3, name="made"),
        L.BatchNormalization(),
        L.LeakyReLU(),
        L.AveragePooling2D(2),
        L.Flatten(),
        L.Dense(3),
    ]


def normalised() -> list[keras.Layer]:
    return [
        keras.Input((6, 2)),
        L.Conv1D(6, 3, use_bias=False),
        L.BatchNormalization(name="made"),
        L.Activation("gelu"),
        L.Conv1D(4, 1, padding="same"),
        L.GlobalAveragePooling1D(),
        L.Dense(3),
    ]


def made(layers: Callable[[], list[keras.Layer]]) -> keras.Model:
    keras.utils.set_random_seed(0)
    model = keras.Sequential(layers())
    randomise_statistics(model)
    layer = model.get_layer("made")
    weight = layer.gamma if isinstance(layer, L.BatchNormalization) else layer.kernel
    array = keras.ops.convert_to_numpy(weight).copy()
    array[..., GONE] = 0
    weight.assign(array)
    offset = layer.beta if isinstance(layer, L.BatchNormalization) else layer.bias
    offset.assign(np.linspace(-2, 2, 6))
    return model


@pytest.mark.parametrize("layers", [dense, pooled, flattened, normalised])
def test_constant_channels_go_without_a_change(layers: Callable[[], list[keras.Layer]]) -> None:
    model = made(layers)
    channel_map = map_channels(read(model))
    keep = np.ones(channel_map.count, dtype=bool)
    group = next(g for g in channel_map.groups if "made" in g.layers)
    keep[group.channels[GONE]] = False
    x = random_inputs(model, np.random.default_rng(0), 8)
    whole = np.asarray(keras.ops.convert_to_numpy(model(x)))
    folded = np.asarray(keras.ops.convert_to_numpy(build(cut_and_fold(channel_map, keep))(x)))
    bare = np.asarray(keras.ops.convert_to_numpy(build(cut(channel_map, keep))(x)))
    np.testing.assert_allclose(folded, whole, atol=2e-5)
    assert np.abs(bare - whole).max() > 1e-2


def test_magnitude_cuts_them_first_and_exactly() -> None:
    model = made(dense)
    small = PruneChannels(4, scope="layer")(model)
    x = random_inputs(model, np.random.default_rng(0), 8)
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(small(x)), keras.ops.convert_to_numpy(model(x)), atol=1e-5
    )
    plain = PruneChannels(4, scope="layer", compensate=False)(model)
    assert np.abs(keras.ops.convert_to_numpy(plain(x) - model(x))).max() > 1e-2


def test_where_zeros_are_padded_a_constant_is_none_and_the_bias_stays() -> None:
    keras.utils.set_random_seed(0)
    layers = pooled()
    layers[3] = L.Conv2D(4, 3, padding="same", activation="relu", name="padded")
    model = made(lambda: layers)
    channel_map = map_channels(read(model))
    keep = np.ones(channel_map.count, dtype=bool)
    keep[next(g for g in channel_map.groups if "made" in g.layers).channels[GONE]] = False
    folded = build(cut_and_fold(channel_map, keep))
    np.testing.assert_array_equal(
        folded.get_layer("padded").bias.numpy(), model.get_layer("padded").bias.numpy()
    )


def test_a_shared_reader_keeps_its_bias() -> None:
    """Its calls may read different constants, and it has one bias."""
    keras.utils.set_random_seed(0)
    first, second = keras.Input((5,)), keras.Input((5,))
    made_a, made_b = L.Dense(4, name="a"), L.Dense(4, name="b")
    reader = L.Dense(3, name="reader")
    outputs = [reader(made_a(first)), reader(made_b(second))]
    model = keras.Model([first, second], outputs)
    for layer, bias in ((made_a, 1.0), (made_b, 2.0)):
        kernel, _ = layer.get_weights()
        kernel[:, 0] = 0
        layer.set_weights([kernel, np.full(4, bias)])
    channel_map = map_channels(read(model))
    keep = np.ones(channel_map.count, dtype=bool)
    keep[next(g for g in channel_map.groups if "a" in g.layers_made).channels[0]] = False
    folded = build(cut_and_fold(channel_map, keep))
    np.testing.assert_array_equal(folded.get_layer("reader").bias.numpy(), reader.bias.numpy())
