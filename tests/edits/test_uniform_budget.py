"""With few heads, a uniform cut uses a budget that one share for all would leave half empty."""

from __future__ import annotations

import keras
import numpy as np
from keras import layers as L

import saikei as sk


def test_a_uniform_cut_uses_most_of_its_budget() -> None:
    keras.utils.set_random_seed(0)
    x = inputs = keras.Input((16, 8))
    x = L.Dense(32)(x)
    for _ in range(2):
        normal = L.LayerNormalization()(x)
        x = x + L.MultiHeadAttention(4, 8)(normal, normal)
        x = x + L.Dense(32)(L.Dense(128, "gelu")(L.LayerNormalization()(x)))
    model = keras.Model(inputs, L.Dense(3)(x))
    whole = sk.profile(model, latency=False).macs
    for share in (0.35, 0.5, 0.6):
        small = sk.PruneChannels(sk.Budget(macs=share), scope="uniform")(model)
        left = sk.profile(small, latency=False).macs / whole
        assert 0.85 * share < left <= share
        attention = [one for one in small.layers if isinstance(one, L.MultiHeadAttention)]
        assert {one.num_heads for one in attention} <= {2, 3} and small.layers[1].units % 8 == 0
        assert np.isfinite(small(np.ones((1, 16, 8)))).all()
