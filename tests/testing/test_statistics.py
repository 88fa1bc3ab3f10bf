"""The numbers that the oracle gives a model before it looks at it."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers as L
from keras import ops

from saikei.testing import randomise_statistics

pytestmark = pytest.mark.backends

X = np.random.default_rng(0).normal(size=(16, 5)).astype("float32")


def test_an_adapted_normalisation_computes_with_its_random_statistics() -> None:
    layer = L.Normalization()
    layer.adapt(3 * X + 1)
    model = keras.Sequential([keras.Input((5,)), layer])
    before = [weight.copy() for weight in layer.get_weights()]
    randomise_statistics(model)
    mean, variance = (ops.convert_to_numpy(w) for w in (layer.adapt_mean, layer.adapt_variance))
    assert not np.allclose(mean, before[0]) and not np.allclose(variance, before[1])
    found = ops.convert_to_numpy(model(X))
    np.testing.assert_allclose(found, (X - mean) / np.sqrt(variance), rtol=1e-5, atol=1e-6)


def test_biases_and_statistics_are_no_longer_zeros_and_ones() -> None:
    model = keras.Sequential(
        [keras.Input((6, 6, 2)), L.Conv2D(4, 3), L.BatchNormalization(), L.GroupNormalization(2)]
    )
    randomise_statistics(model)
    for weight in model.get_weights():
        assert len(np.unique(weight)) == weight.size
    assert [layer.momentum for layer in model.layers if hasattr(layer, "momentum")] == [0.99]
