"""`tensor_values` sees what is inside a model, and leaves the model as it is."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers

from saikei.errors import ModelError
from saikei.graph import TensorRef, check_runs_as_read, read, tensor_values

pytestmark = pytest.mark.backends

RNG = np.random.default_rng(0)
X = RNG.normal(size=(16, 4)).astype("float32")


def nested(frozen=None):
    keras.utils.set_random_seed(1)
    part = keras.Sequential(
        [keras.Input((4,)), layers.Dense(4, name="low"), layers.BatchNormalization(name="norm")],
        name="inner",
    )
    x = inputs = keras.Input((4,))
    x = part(x) if frozen is None else part(x, training=frozen)
    shared = layers.Dense(4, activation="tanh", name="shared")
    x = layers.Dropout(0.5, seed=0, name="drop")(shared(shared(x)))
    return keras.Model(inputs, layers.Dense(2, name="answer")(x + 1.0), name="outer")


def values(model, names, training=None):
    graph = read(model)
    calls = [call.operation for call in graph.calls]
    refs = [TensorRef(calls.index(name), 0) for name in names]
    found = tensor_values(graph, model, X, [*refs, *graph.output_refs()], training)
    return [keras.ops.convert_to_numpy(one) for one in found]


def test_layers_of_nested_models_are_seen_and_the_outputs_are_those_of_a_call():
    model = nested()
    low, outputs = values(model, ["low"])
    kernel, bias = model.get_layer("inner").get_layer("low").get_weights()
    assert low == pytest.approx(X @ kernel + bias, abs=1e-5)
    assert outputs == pytest.approx(model.predict_on_batch(X), abs=1e-5)


@pytest.mark.parametrize("frozen", [None, False])
@pytest.mark.parametrize("training", [None, False, True])
def test_training_reaches_the_layers_as_in_a_call_of_the_model(training, frozen):
    model, twin = nested(frozen), nested(frozen)
    found = values(model, [], training)[0]
    expected = keras.ops.convert_to_numpy(twin(X, training=training))
    assert found == pytest.approx(expected, abs=1e-5)
    moved = [mean_of_normalisation(one) for one in (model, twin)]
    assert moved[0] == pytest.approx(moved[1], abs=1e-6)
    assert moved[0].any() == bool(training)


def mean_of_normalisation(model):
    norm = model.get_layer("inner").get_layer("norm")
    return keras.ops.convert_to_numpy(norm.moving_mean)


def test_looking_adds_nothing_to_the_model():
    model = nested()
    nodes = [len(layer._inbound_nodes) for layer in model.layers]
    config = model.to_json()
    values(model, ["low"])
    assert [len(layer._inbound_nodes) for layer in model.layers] == nodes
    assert model.to_json() == config


def test_inputs_may_come_as_the_model_takes_them():
    a, b = keras.Input((), name="a"), keras.Input((1,), name="b")
    model = keras.Model({"a": a, "b": b}, keras.ops.expand_dims(a, -1) - b)
    graph = read(model)
    given = {"b": np.ones(3), "a": np.array([1.0, 2.0, 3.0])}
    (found,) = tensor_values(graph, model, given, graph.output_refs())
    assert keras.ops.convert_to_numpy(found).ravel() == pytest.approx([0.0, 1.0, 2.0])


class Doubled(layers.Layer):
    """A layer whose `call` has to be run to see what it does."""

    def __init__(self):
        super().__init__(name="doubled")
        self.within = layers.Dense(4, name="within")

    def call(self, x, training=False):
        return self.within(x) * 2.0


def test_what_is_known_from_running_a_call_is_not_taken_for_the_model():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, layers.Dense(2)(Doubled()(inputs)), name="whole")
    with pytest.raises(ModelError, match="'within' of model 'whole'"):
        check_runs_as_read(read(model), model)


def test_layers_of_nested_models_are_the_models_own():
    model = nested()
    check_runs_as_read(read(model), model)
