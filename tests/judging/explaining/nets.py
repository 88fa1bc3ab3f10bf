"""Small nets of some skill, and what their explanations are asked."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers

CLASSES = 3


def data_of(rows, seed):
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(rows, 4)).astype("float32")
    return x, x[:, :CLASSES].argmax(axis=1)


HELD_OUT = data_of(90, 1)


def net(seed, sharpness=2.0, head="softmax"):
    """Knows the classes as well as its random weights happen to."""
    keras.utils.set_random_seed(seed)
    model = keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(6, activation="relu"),
            layers.Dense(CLASSES),
            layers.Activation(head),
        ],
        name=f"net_{seed}",
    )
    kernel = np.random.default_rng(seed).normal(size=(4, 6))
    kernel[:3, :3] += sharpness * np.eye(3)
    model.layers[0].set_weights([kernel, np.zeros(6)])
    model.layers[1].set_weights([np.eye(6, 3) + 0.2 * kernel.T[:, :3], np.zeros(3)])
    return model


MEMBERS = [net(seed) for seed in range(3)]


def values(explanation):
    return [member.shapley for member in explanation.members]


def sums_up(explanation):
    gain = explanation.without_members - explanation.with_all
    return sum(values(explanation)) == pytest.approx(gain, abs=1e-6)


def score_is_that_of(explanation, score):
    return explanation.fused.value == pytest.approx(
        score.value, abs=1e-6
    ) and explanation.fused.loss == pytest.approx(score.loss, abs=1e-5)
