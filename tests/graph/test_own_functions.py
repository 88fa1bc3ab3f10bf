"""Activation functions and `Lambda`s of the process are traced and used as they are."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import saikei as sk
from saikei.edits import PruneChannels
from saikei.errors import EditError, ModelError, PinnedWarning
from saikei.graph import check_runs_as_read, copy_model, read
from saikei.testing import assert_cuts_exactly

L, ops = keras.layers, keras.ops
X = np.random.default_rng(0).normal(size=(5, 8, 4)).astype("float32")


def leaky(x: Any) -> Any:
    return keras.activations.relu(x, negative_slope=0.1, max_value=20.0)


@keras.saving.register_keras_serializable("tests")
def registered(x: Any) -> Any:
    return ops.where(x > 0, x, 0.1 * x)


@keras.saving.register_keras_serializable("tests")
def over_its_sum(x: Any) -> Any:
    return x / (1.0 + ops.sum(ops.abs(x), axis=-1, keepdims=True))


class Scaled:
    """A callable object."""

    def __init__(self, factor: float) -> None:
        self.factor = factor

    def __call__(self, x: Any) -> Any:
        return ops.tanh(x) * self.factor


def relu(x: Any) -> Any:
    """Not what Keras has under that name, by which it would be saved."""
    return ops.minimum(ops.maximum(x, 0.0), 0.5)


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "function": leaky,
    "registered": registered,
    "named as one of Keras's": relu,
    "lambda": lambda x: ops.relu(x) - 0.1,
    "partial": functools.partial(keras.activations.leaky_relu, negative_slope=0.3),
    "object": Scaled(2.0),
    "keras.ops": ops.sin,
    "keras.ops with other defaults": ops.gelu,
    "over all channels": over_its_sum,
    "layer with weights": L.PReLU,
}


def network(function: Any) -> keras.Model:
    """A dense layer that is called twice, a convolution, an `Activation` and a `Lambda`."""
    tensor = keras.Input((8, 4))
    shared = L.Dense(6, activation=function(), name="shared")
    x = L.Add()([shared(tensor), shared(L.Reshape((8, 4))(tensor))])
    x = L.Activation(function())(L.Conv1D(6, 3, activation=function())(x))
    x = L.Dense(4)(L.Lambda(function())(L.Conv1D(6, 1)(x)))
    return keras.Model(tensor, L.Dense(3, name="out")(L.Flatten()(x)))


def answers(model: keras.Model) -> Any:
    return np.asarray(ops.convert_to_numpy(model(X)))


@pytest.mark.sampled
@pytest.mark.backends
@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_of_ones_own_is_cut_through_copied_and_saved(name: str, tmp_path: Path) -> None:
    function = FUNCTIONS[name]
    model = network(function if isinstance(function, type) else lambda: function)
    before = answers(model)
    np.testing.assert_allclose(answers(copy_model(model)), before, atol=1e-6)
    # Keras cannot save and load all of these; what comes out of the cut it can.
    assert assert_cuts_exactly(model, readers=True, loaded=False).cut > 0
    pruned = PruneChannels(0.5)(model)
    assert pruned.count_params() < 0.7 * model.count_params()
    pruned.save(tmp_path / "pruned.keras")
    loaded = keras.saving.load_model(tmp_path / "pruned.keras")
    np.testing.assert_allclose(answers(loaded), answers(pruned), atol=1e-6)
    np.testing.assert_array_equal(answers(model), before)


def test_a_registered_function_stays_the_activation_of_its_layer() -> None:
    layer = copy_model(network(lambda: registered)).get_layer("shared")
    assert layer.activation is registered


def test_one_of_ones_own_is_followed_by_name_and_can_be_fused() -> None:
    members = [network(lambda: FUNCTIONS["lambda"]) for _ in range(2)]
    fused = sk.Average()(members)
    mean = (answers(members[0]) + answers(members[1])) / 2
    np.testing.assert_allclose(answers(fused), mean, atol=1e-6)
    graph = read(network(lambda: leaky))
    assert graph.operations["shared"].config["activation"] == "linear"
    check_runs_as_read(read(members[0]), members[0])


@pytest.mark.sampled
@pytest.mark.parametrize("name", [n for n in FUNCTIONS if n != "layer with weights"])
def test_within_a_recurrence_functions_of_each_number_are_cut_through(name: str) -> None:
    function = FUNCTIONS[name]
    model = keras.Sequential(
        [
            keras.Input((8, 4)),
            L.Dense(6),
            L.LSTM(6, activation=function, recurrent_activation=function, return_sequences=True),
            L.TimeDistributed(L.Dense(6, activation=function)),
            L.RNN(L.GRUCell(6, activation=function)),
            L.Dense(3),
        ]
    )
    np.testing.assert_allclose(answers(copy_model(model)), answers(model), atol=1e-6)
    if name != "over all channels":
        assert PruneChannels(0.5)(model).count_params() < 0.5 * model.count_params()
        return
    with pytest.warns(PinnedWarning, match=r"% of the parameters.*'over_its_sum' is not known"):
        PruneChannels(0.5)(model)


def outside_of_keras(x: Any) -> Any:
    return keras.ops.convert_to_tensor(np.tanh(keras.ops.convert_to_numpy(x)))


def test_what_cannot_be_traced_is_kept_whole_and_named() -> None:
    layers = [L.Dense(6, name="a"), L.Lambda(outside_of_keras, output_shape=(8, 6), name="own")]
    layers += [L.Dense(64, name="b", activation=outside_of_keras), L.GlobalMaxPooling1D()]
    model = keras.Sequential([keras.Input((8, 4)), *layers, L.Dense(3)])
    model.run_eagerly = True
    np.testing.assert_allclose(answers(copy_model(model)), answers(model), atol=1e-6)
    with (
        pytest.warns(PinnedWarning, match="'own' is of kind Lambda.*cannot be traced") as caught,
        pytest.raises(EditError, match="nothing to cut"),
    ):
        PruneChannels(0.5)(model)
    message = str(next(one.message for one in caught if one.category is PinnedWarning))
    assert "the activation of 'b' cannot be traced" in message
    assert "% of the parameters are in layers that keep their width: 'b'" in message


def test_what_a_file_cannot_hold_is_refused_before_a_run() -> None:
    layers = [keras.Input((8, 4)), L.LSTM(4, activation=lambda x: ops.tanh(x)), L.Dense(2)]
    model = keras.Sequential(layers)
    data = X, np.zeros(5, "int32")
    with pytest.raises(
        ModelError, match=r"Layer 'lstm.*' of model .*\(lambda\).*cannot be saved in a file"
    ):
        sk.optimize(model, data, data, budget=sk.Budget(params=0.5), effort=3)


def test_a_layer_that_a_lambda_hides_is_named_and_the_fix_works() -> None:
    hidden = L.Dense(3, name="hidden")
    hidden.build((None, 8, 4))
    tensor = keras.Input((8, 4))
    model = keras.Model(tensor, L.Lambda(lambda x: hidden(x), name="own")(tensor))
    with pytest.raises(ModelError, match="'own_hidden'.*call that layer in the model itself"):
        read(model)
    assert copy_model(keras.Model(tensor, hidden(tensor))).count_params() == 15
