"""Subclassed models are trained, taught and read as others are, compiled or not."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

import saikei as sk

pytestmark = pytest.mark.backends

RNG = np.random.default_rng(0)
X = RNG.normal(size=(96, 4)).astype("float32")
CLASSES = (X[:, 0] > 0).astype(int) + (X[:, 1] > 0)


class Net(keras.Model):
    """Layers, and weights of its own in a dictionary whose keys cannot be sorted."""

    def __init__(self, name: str = "net") -> None:
        super().__init__(name=name)
        keras.utils.set_random_seed(0)
        self.hidden = layers.Dense(8, activation="relu")
        self.classes = layers.Dense(3)
        self.drop = layers.Dropout(0.1, seed=0)
        self.shifts = {
            key: self.add_weight(shape=(3,), initializer="zeros", name=f"shift_{key}")
            for key in (0, "b")
        }

    def call(self, inputs: Any, training: bool = False) -> Any:
        hidden = self.drop(self.hidden(inputs), training=training)
        return keras.ops.softmax(self.classes(hidden) + self.shifts[0] - self.shifts["b"])


def net(name: str = "net") -> keras.Model:
    model = Net(name)
    model(X[:2])
    return model


def arguments(**changes: Any) -> dict[str, Any]:
    defaults = {"epochs": 3, "batch_size": 16, "learning_rate": 0.03, "progress": False}
    return {**defaults, **changes}


@pytest.mark.long
def test_a_subclassed_model_is_fitted_and_fitted_again() -> None:
    model, data = net(), (X, CLASSES)
    first = sk.fit(model, data, data, **arguments()).history
    assert first["val_loss"][-1] < first["val_loss"][0]
    assert all(keras.ops.convert_to_numpy(shift).any() for shift in model.shifts.values())
    again = sk.fit(model, data, data, **arguments(epochs=1)).history
    assert again["val_loss"][0] < first["val_loss"][0]
    assert sk.evaluate(model, data).value > 0.6


def test_a_compiled_model_is_read_as_before_it_was_compiled() -> None:
    model = net()
    before = sk.profile(model, latency=False)
    model.compile("adam", "sparse_categorical_crossentropy")
    model.evaluate(X, CLASSES, verbose=0)
    assert sk.profile(model, latency=False) == before


@pytest.mark.long
def test_a_subclassed_model_is_cut_after_its_training_and_taught_by_another() -> None:
    teacher, student, data = net("teacher"), net("student"), (X, CLASSES)
    sk.fit(teacher, data, **arguments())
    history = sk.distill(student, teacher, data, **arguments()).history
    assert history["loss"][-1] < history["loss"][0]
    small = sk.PruneChannels(0.5)(student, data)
    assert small.count_params() < student.count_params()
    assert keras.ops.shape(small(X[:5])) == (5, 3)
