"""Why a call cannot be traced is true, and what is offered works."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

from saikei.errors import ModelError
from saikei.graph import copy_model, read

pytestmark = pytest.mark.backends

L, ops = keras.layers, keras.ops
X = np.random.default_rng(0).normal(size=(4, 6)).astype("float32")


def outputs(model: keras.Model, training: bool = False) -> np.ndarray:
    return np.asarray(ops.convert_to_numpy(model(X, training=training)))


class Net(keras.Model):
    def __init__(self) -> None:
        super().__init__(name="net")
        self.one, self.other = L.Dense(6), L.Dense(6)
        self.noise = L.GaussianNoise(1.0)
        self.one.build((None, 6))
        self.other.build((None, 6))


class Chooses(Net):
    def call(self, x: Any) -> Any:
        return ops.cond(ops.mean(x) > 0, lambda: self.one(x), lambda: self.other(x))


class ChoosesByWhere(Net):
    def call(self, x: Any) -> Any:
        return ops.where(ops.mean(x) > 0, self.one(x), self.other(x))


class Switches(Net):
    def call(self, x: Any) -> Any:
        index = ops.cast(ops.mean(x) > 0, "int32")
        return ops.switch(index, [self.one, self.other], x)


class SwitchesByWhere(Net):
    def call(self, x: Any) -> Any:
        return ops.where(ops.mean(x) > 0, self.other(x), self.one(x))


class Maps(Net):
    def call(self, x: Any) -> Any:
        return ops.map(lambda row: row * 2, self.one(x))


class Vectorised(Net):
    def call(self, x: Any) -> Any:
        return ops.vectorized_map(lambda row: row * 2, self.one(x))


class Repeats(Net):
    def call(self, x: Any) -> Any:
        return ops.fori_loop(0, 1, lambda _, y: y * 2, self.one(x))


class WrittenOut(Net):
    def call(self, x: Any) -> Any:
        return self.one(x) * 2


class Draws(Net):
    def call(self, x: Any) -> Any:
        return self.one(x) + np.random.normal()  # noqa: NPY002


class DrawsByLayer(Net):
    def call(self, x: Any) -> Any:
        return self.noise(self.one(x))


class TrainsOtherwise(Net):
    def call(self, x: Any, training: bool = False) -> Any:
        return self.other(self.one(x)) if training else self.one(x)


def called(cls: type[Net], training: bool = False) -> Net:
    model = cls()
    model(X, training=training) if cls is TrainsOtherwise else model(X)
    return model


@pytest.mark.parametrize(
    ("wrong", "message", "right"),
    [
        (Chooses, "functions to keras.ops.cond.*both.*keras.ops.where", ChoosesByWhere),
        (Switches, "functions to keras.ops.switch.*all.*keras.ops.where", SwitchesByWhere),
        (Maps, "functions to keras.ops.map.*write out in Python", WrittenOut),
        (Vectorised, "functions to keras.ops.vectorized_map.*write out in Python", WrittenOut),
        (Repeats, "functions to keras.ops.fori_loop.*write out in Python", WrittenOut),
        (Draws, "something else each time.*keras.layers.GaussianNoise", DrawsByLayer),
    ],
)
def test_what_is_offered_in_the_place_of_a_call_is_traced(
    wrong: type[Net], message: str, right: type[Net]
) -> None:
    with pytest.raises(ModelError, match=message) as refused:
        copy_model(called(wrong))
    assert "in training" not in str(refused.value)
    model = called(right)
    np.testing.assert_allclose(outputs(copy_model(model)), outputs(model), rtol=1e-5, atol=1e-6)


class AtInference(keras.Model):
    def __init__(self, model: keras.Model) -> None:
        super().__init__()
        self.model = model

    def call(self, x: Any) -> Any:
        return self.model(x, training=False)


def test_what_a_call_does_at_inference_alone_is_read_as_the_message_offers() -> None:
    model = called(TrainsOtherwise, training=True)
    with pytest.raises(ModelError, match=r"in training .*returns self.model\(x, training=False\)"):
        copy_model(model)
    wrapped = AtInference(model)
    wrapped(X)
    np.testing.assert_allclose(outputs(copy_model(wrapped)), outputs(model), rtol=1e-5, atol=1e-6)


class Doubles(L.Layer):
    """Does something else in training, and has a default for it that Keras may record."""

    def __init__(self, name: str = "doubles", **kwargs: Any) -> None:
        super().__init__(name=name, **kwargs)
        self.within = L.Dense(4)

    def call(self, x: Any, training: bool = False) -> Any:
        return self.within(x) * (2.0 if training else 1.0)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_layer_in_a_functional_model_is_read_for_both_modes_whatever_its_default(
    dtype: str,
) -> None:
    inputs = keras.Input((6,), dtype=dtype)
    model = keras.Model(inputs, Doubles()(inputs, training=False))
    assert "in training" in str(read(model).operations["doubles"].untraced)
    copied = copy_model(model)
    for training in (False, True):
        np.testing.assert_array_equal(outputs(copied, training), outputs(model, training))


class NotANumber(Net):
    def call(self, x: Any) -> Any:
        return ops.where(x > 100.0, float("nan"), self.one(x))


def test_not_a_number_among_the_arguments_is_no_reason() -> None:
    model = called(NotANumber)
    np.testing.assert_allclose(outputs(copy_model(model)), outputs(model), rtol=1e-6)
