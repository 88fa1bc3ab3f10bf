"""Subclassed models are read whichever way they were built: by hand, by a call, or both."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

from saikei.edits import PruneChannels
from saikei.errors import ModelError
from saikei.graph import copy_model, read

L = keras.layers
SHAPE = (None, 6, 6, 3)
X = np.random.default_rng(0).normal(size=(2, *SHAPE[1:])).astype("float32")


class Net(keras.Model):
    def __init__(self) -> None:
        super().__init__(name="net")
        self.conv, self.flat, self.head = L.Conv2D(8, 3), L.Flatten(), L.Dense(4)

    def call(self, inputs: Any) -> Any:
        return self.head(self.flat(self.conv(inputs)))

    def build_parts(self, shape: Any) -> None:
        self.conv.build(shape)
        self.head.build(self.flat.compute_output_shape(self.conv.compute_output_shape(shape)))


class ByDefault(Net):
    def build(self, input_shape: Any = SHAPE) -> None:
        self.build_parts(input_shape)
        super().build(input_shape)


class WithoutShape(Net):
    def build(self) -> None:
        self.build_parts(SHAPE)
        self.built = True


class AnyShapes(Net):
    def build(self, *shapes: Any) -> None:
        self.build_parts(SHAPE)
        self.built = True


def built_in_init() -> Net:
    model = Net()
    model.build_parts(SHAPE)
    model.built = True
    return model


def built(cls: type[Net], *shapes: Any) -> Net:
    model = cls()
    model.build(*shapes)
    return model


@pytest.mark.parametrize("called", [False, True])
@pytest.mark.parametrize(
    "make",
    [
        lambda: built(ByDefault),
        lambda: built(ByDefault, SHAPE),
        lambda: built(WithoutShape),
        lambda: built(AnyShapes),
        built_in_init,
    ],
)
def test_a_model_that_was_built_by_hand_is_read_whether_it_was_called_or_not(
    make: Any, called: bool
) -> None:
    model = make()
    if called:
        model(X)
    expected = model(X) if called else None
    copy = copy_model(model)
    assert copy.input_shape == SHAPE
    np.testing.assert_allclose(copy(X), model(X) if expected is None else expected, rtol=1e-5)
    assert PruneChannels(0.5)(model).count_params() < 0.6 * model.count_params()


class WeightAlone(keras.Model):
    """No layer has the shape of the input, and `call` could take many."""

    def __init__(self) -> None:
        super().__init__(name="alone")
        self.kernel = self.add_weight(shape=(4, 3))
        self.built = True

    def build(self, *shapes: Any) -> None:
        self.built = True

    def call(self, inputs: Any) -> Any:
        return keras.ops.matmul(inputs, self.kernel)


class TwoInputs(keras.Model):
    def __init__(self) -> None:
        super().__init__(name="two")
        self.one, self.other = L.Dense(3), L.Dense(3)
        self.one.build((None, 4))
        self.other.build((None, 5))
        self.built = True

    def build(self, *shapes: Any) -> None:
        self.built = True

    def call(self, inputs: Any) -> Any:
        return self.one(inputs[0]) + self.other(inputs[1])


@pytest.mark.parametrize(
    ("model", "shape"), [(WeightAlone(), (4,)), (TwoInputs(), [(4,), (5,)])], ids=["one", "two"]
)
def test_where_the_shape_is_recorded_nowhere_the_fix_of_the_message_works(
    model: Any, shape: Any
) -> None:
    with pytest.raises(ModelError, match="shape of its input is unknown") as refused:
        read(model)
    assert "inputs = keras.Input(shape); keras.Model(inputs, model(inputs))" in str(refused.value)
    inputs = [keras.Input(s) for s in shape] if isinstance(shape, list) else keras.Input(shape)
    wrapped = keras.Model(inputs, model(inputs))
    assert copy_model(wrapped).count_params() == model.count_params()


class Untraceable(Net):
    def call(self, inputs: Any) -> Any:
        if float(keras.ops.sum(inputs)) > 0:
            return super().call(inputs)
        return super().call(-inputs)


class UntraceableByHand(Untraceable):
    def build(self, input_shape: Any = SHAPE) -> None:
        self.build_parts(input_shape)
        self.built = True


@pytest.mark.parametrize("cls", [Untraceable, UntraceableByHand])
def test_a_model_that_cannot_be_traced_names_its_line_however_it_was_built(cls: Any) -> None:
    model = built(cls) if cls is UntraceableByHand else cls()
    model(X)
    with pytest.raises(ModelError, match="cannot be traced.*float\\(keras.ops.sum"):
        read(model)
