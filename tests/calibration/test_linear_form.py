"""Features times matrix plus bias is what the layer computes, at every position."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers as L

from saikei.calibration.linear_form import linear_form
from saikei.graph import read
from saikei.testing import randomise_statistics

LAYERS = [
    (L.Dense(5), (7,)),
    (L.Dense(5, use_bias=False), (3, 4, 7)),
    (L.Conv1D(5, 3, padding="same"), (9, 4)),
    (L.Conv1D(5, 3, padding="causal", dilation_rate=2), (9, 4)),
    (L.Conv1D(6, 2, strides=2, groups=2), (9, 4)),
    (L.Conv2D(5, 3), (8, 7, 4)),
    (L.Conv2D(5, 3, padding="same", strides=2), (8, 7, 4)),
    (L.Conv2D(5, (3, 2), padding="same", strides=(2, 1)), (9, 8, 4)),
    (L.Conv2D(5, 3, dilation_rate=2, padding="same"), (9, 8, 4)),
    (L.Conv2D(8, 3, groups=4, padding="same"), (6, 6, 16)),
    (L.Conv2D(6, 3, groups=2, use_bias=False), (6, 6, 4)),
    (L.Conv2D(5, 2, strides=3), (8, 8, 1)),
    (L.Conv3D(3, 2, padding="same"), (4, 5, 4, 2)),
    (L.DepthwiseConv2D(3, padding="same"), (6, 7, 4)),
    (L.DepthwiseConv2D(3, depth_multiplier=2, strides=2), (7, 7, 3)),
    (L.DepthwiseConv2D(3, depth_multiplier=2), (7, 7, 1)),
    (L.DepthwiseConv1D(3, padding="same"), (7, 4)),
    (L.EinsumDense("abc,cd->abd", (None, 5), bias_axes="d"), (3, 4)),
    (L.EinsumDense("abc,cde->abde", (None, 2, 5), bias_axes="de"), (3, 4)),
    (L.EinsumDense("abcd,cde->abe", (None, 5), bias_axes="e"), (3, 2, 4)),
    (L.EinsumDense("abc,bd->adc", (5, 4)), (3, 4)),
]


@pytest.mark.parametrize(("layer", "shape"), LAYERS, ids=lambda value: getattr(value, "name", ""))
def test_a_linear_form_computes_what_its_layer_does(
    layer: keras.Layer, shape: tuple[int, ...]
) -> None:
    model = keras.Sequential([keras.Input(shape), layer])
    randomise_statistics(model)
    operation = read(model).operations[layer.name]
    form = linear_form(operation)
    assert form is not None
    x = np.random.default_rng(0).normal(size=(3, *shape)).astype(np.float32)
    y = keras.ops.convert_to_numpy(model(x))
    last = form.channels_last(y)
    rows = np.arange(int(np.prod(last.shape[:-1])))[::2]
    computed = form.features(x, rows) @ form.matrix(operation) + form.bias(operation)
    np.testing.assert_allclose(computed, form.outputs(y, rows), atol=2e-5)


@pytest.mark.parametrize(("layer", "shape"), LAYERS, ids=lambda value: getattr(value, "name", ""))
def test_no_change_gives_the_weights_back(layer: keras.Layer, shape: tuple[int, ...]) -> None:
    model = keras.Sequential([keras.Input(shape), layer])
    randomise_statistics(model)
    operation = read(model).operations[layer.name]
    form = linear_form(operation)
    assert form is not None
    systems, features, outputs = form.matrix(operation).shape
    changed = form.changed(operation, np.zeros((systems, features + 1, outputs)))
    for name, weight in operation.weights.items():
        np.testing.assert_allclose(changed.weights[name].numpy(), weight.numpy(), rtol=1e-6)


@pytest.mark.parametrize(
    "layer",
    [
        L.EinsumDense("abc,bcd->abd", (3, 5)),
        L.EinsumDense("...c,cd->...d", (5,)),
        L.EinsumDense("abc,cd->abd", (3, 5), bias_axes="bd"),
        L.Embedding(4, 3),
        L.LSTM(3),
        L.SeparableConv1D(3, 2),
    ],
    ids=lambda layer: layer.name,
)
def test_what_is_not_known_to_be_linear_has_no_form(layer: keras.Layer) -> None:
    shape = (3,) if isinstance(layer, L.Embedding) else (3, 4)
    model = keras.Sequential([keras.Input(shape), layer])
    assert linear_form(read(model).operations[layer.name]) is None
