"""Members that are trained in series, each on what the earlier ones get wrong."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers as L

import saikei as sk
from saikei import Boost
from saikei.errors import FusionError

FAST = {"epochs": 8, "batch_size": 32, "learning_rate": 1e-2}


def model_of(*layers: keras.Layer, inputs: int = 2, seed: int = 0) -> keras.Model:
    keras.utils.set_random_seed(seed)
    return keras.Sequential([keras.Input((inputs,)), *layers])


def plane(n: int = 300, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, size=(n, 2)).astype("float32")


def wave(x: np.ndarray) -> np.ndarray:
    return (np.sin(3 * x[:, 0]) + x[:, 1] ** 2).astype("float32")


def ring(x: np.ndarray) -> np.ndarray:
    return ((x**2).sum(axis=1) > 0.5).astype(int) + (x[:, 0] > 0.5)


def predicted(model: keras.Model, x: object) -> np.ndarray:
    return np.asarray(model.predict_on_batch(x))


def weak(*end: keras.Layer, seed: int = 0) -> keras.Model:
    return model_of(L.Dense(3, activation="tanh"), *end, seed=seed)


@pytest.mark.parametrize(
    ("end", "labels"),
    [
        ((L.Dense(1),), wave),
        pytest.param((L.Dense(3, activation="softmax"),), ring, marks=pytest.mark.long),
        pytest.param((L.Dense(3), L.Softmax()), ring, marks=pytest.mark.slow),
        pytest.param(
            (L.Dense(1, activation="sigmoid"),),
            lambda x: (ring(x) > 0).astype(int),
            marks=pytest.mark.slow,
        ),
        pytest.param((L.Dense(3),), ring, marks=pytest.mark.slow),
    ],
)
def test_the_training_loss_never_goes_up_and_is_that_of_the_model(
    end: object, labels: object
) -> None:
    x = plane()
    data = x, labels(x)  # type: ignore[operator]
    first = weak(*[type(layer).from_config(layer.get_config()) for layer in end])  # type: ignore[attr-defined]
    sk.fit(first, data, progress=False, **FAST)
    fitted = Boost(rounds=2, **FAST).fuse([first], data)
    assert len(fitted.losses) == len(fitted.steps) == 2
    assert all(np.diff(fitted.losses) < 0)
    assert fitted.steps[0] == 1.0
    assert sk.evaluate(fitted.model, data).loss == pytest.approx(fitted.losses[-1], rel=1e-4)
    assert sk.evaluate(first, data).loss == pytest.approx(fitted.losses[0], rel=1e-4)


@pytest.mark.long
def test_the_model_is_the_weighted_sum_of_architectures_that_take_turns() -> None:
    x = plane()
    members = [weak(L.Dense(1)), model_of(L.Dense(5, activation="relu"), L.Dense(1), seed=1)]
    boost = Boost(rounds=3, keep_first=False, shrinkage=0.5, **FAST)
    fitted = boost.fuse(members, (x, wave(x)))
    widths = [fitted.model.get_layer(f"member_{i}").layers[1].units for i in (1, 2, 3)]
    assert widths == [3, 5, 3]
    parts = [predicted(fitted.model.get_layer(f"member_{i}"), x) for i in (1, 2, 3)]
    total = sum(step * part for step, part in zip(fitted.steps, parts, strict=True))
    np.testing.assert_allclose(predicted(fitted.model, x), total, rtol=1e-4, atol=1e-5)


@pytest.mark.long
def test_validation_stops_the_series_where_it_only_fits_noise() -> None:
    x, held = plane(80), plane(200, seed=1)
    noise = np.random.default_rng(2).normal(size=80).astype("float32")
    member = model_of(L.Dense(32, activation="relu"), L.Dense(1))
    plain = Boost(rounds=5, keep_first=False, **FAST)
    data = x, wave(x) + noise
    watched = plain.fuse([member], data, (held, wave(held)))
    assert len(watched.steps) < plain.rounds
    assert all(np.diff(watched.validation_losses) < 0)


@pytest.mark.long
def test_inputs_may_be_a_dictionary() -> None:
    a, b = keras.Input((1,), name="a"), keras.Input((1,), name="b")
    hidden = L.Dense(4, activation="tanh")(L.Concatenate()([a, b]))
    member = keras.Model({"a": a, "b": b}, L.Dense(1)(hidden))
    x = plane()
    data = {"a": x[:, :1], "b": x[:, 1:]}, wave(x)
    model = Boost(rounds=2, keep_first=False, **FAST)([member], data)
    assert predicted(model, data[0]).shape == (300, 1)


@pytest.mark.long
def test_a_boosted_model_is_saved_and_loaded_with_what_it_was_trained_on(tmp_path: object) -> None:
    x = plane()
    model = Boost(rounds=2, keep_first=False, **FAST)([weak(L.Dense(1))], (x, wave(x)))
    model.save(f"{tmp_path}/boost.keras")
    loaded = keras.saving.load_model(f"{tmp_path}/boost.keras")
    np.testing.assert_array_equal(predicted(loaded, x), predicted(model, x))
    with pytest.raises(FusionError, match="was trained on 300 of these 300 rows"):
        sk.Average("learn")([model, model], (x, wave(x)))


def test_what_cannot_be_boosted_is_refused_with_the_fix() -> None:
    x = plane()
    with pytest.raises(FusionError, match="needs training data"):
        Boost(rounds=2)([weak(L.Dense(1))])
    with pytest.raises(FusionError, match="at least two members"):
        Boost()([weak(L.Dense(1))], (x, wave(x)))
    with pytest.raises(FusionError, match="ends in relu"):
        Boost(rounds=2)([weak(L.Dense(1, activation="relu"))], (x, wave(x)))
    with pytest.raises(FusionError, match="shrinkage"):
        Boost(shrinkage=0)
    t = keras.Input((2,))
    two = keras.Model(t, [L.Dense(1)(t), L.Dense(1)(t)])
    with pytest.raises(FusionError, match="gives 2"):
        Boost(rounds=2)([two], (x, [wave(x), wave(x)]))
    reshaped = weak(L.Dense(3, activation="softmax"), L.Reshape((3,)))
    with pytest.raises(FusionError, match="cannot be removed"):
        Boost(rounds=2)([reshaped], (x, ring(x)))
