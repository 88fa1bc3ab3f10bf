"""Fusions are explained alike on whichever backend is in use."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers

import saikei as sk
from saikei.fusion import Fusion

pytestmark = pytest.mark.backends

X = np.random.default_rng(0).normal(size=(80, 4)).astype("float32")
Y = X[:, :3].argmax(axis=1)


def net(seed: int) -> keras.Model:
    keras.utils.set_random_seed(seed)
    return keras.Sequential([keras.Input((4,)), layers.Dense(3, activation="softmax")])


@pytest.mark.parametrize(
    "fusion",
    [
        sk.Average((0.5, 0.2, 0.3)),
        sk.Average((0.5, 0.2, 0.3), space="logit"),
        sk.Stack(folds=3),
        sk.Cascade(thresholds=(0.5, 0.6)),
    ],
    ids=["average", "logit", "stack", "cascade"],
)
def test_what_members_gain_sums_to_what_the_fused_model_loses_less(fusion: Fusion) -> None:
    fused = fusion([net(seed) for seed in range(3)], (X[40:], Y[40:]))
    explained = sk.explain(fused, (X[:40], Y[:40]))
    gain = explained.without_members - explained.with_all
    assert sum(member.shapley for member in explained.members) == pytest.approx(gain, abs=1e-6)
    loss = sk.evaluate(fused, (X[:40], Y[:40])).loss
    assert explained.with_all == pytest.approx(loss, abs=1e-5)
