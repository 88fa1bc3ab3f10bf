"""Members in series."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers as L

from saikei import Chain
from saikei.errors import FusionError


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype("float32")


def predicted(model: keras.Model, x: object) -> np.ndarray:
    return np.asarray(model.predict_on_batch(x))


def model_of(given: tuple[int, ...], *layers: keras.Layer, seed: int = 0) -> keras.Model:
    keras.utils.set_random_seed(seed)
    return keras.Sequential([keras.Input(given), *layers])


def state(model: keras.Model) -> list[bytes]:
    return [weight.tobytes() for weight in model.get_weights()]


def test_a_chain_of_members_that_fit_is_their_composition_in_their_order() -> None:
    f = model_of((6,), L.Dense(5, activation="tanh"))
    g = model_of((5,), L.Dense(4, activation="relu"), seed=1)
    h = model_of((4,), L.Dense(3, activation="softmax"), seed=2)
    x = noise(7, 6)
    chain = Chain().fuse([f, g, h])
    assert [adapter.layers for adapter in chain.adapters] == [(), ()]
    expected = predicted(h, predicted(g, predicted(f, x)))
    np.testing.assert_allclose(predicted(chain.model, x), expected, rtol=1e-6, atol=1e-7)


def test_the_same_member_twice_is_applied_twice_with_weights_of_its_own() -> None:
    f = model_of((4,), L.Dense(4, activation="tanh"))
    x = noise(5, 4)
    chain = Chain()([f, f])
    np.testing.assert_allclose(predicted(chain, x), predicted(f, predicted(f, x)), atol=1e-6)
    assert len(chain.weights) == 4


@pytest.mark.sampled
@pytest.mark.parametrize(
    ("first", "second", "layers"),
    [
        (((6,), L.Dense(5)), ((3,), L.Dense(2)), ("Dense",)),
        (((8, 8, 1), L.Conv2D(4, 3)), ((6, 6, 3), L.Conv2D(2, 3)), ("Conv2D",)),
        (((8, 8, 1), L.Conv2D(4, 3)), ((9, 5, 4), L.Conv2D(2, 3)), ("Resizing",)),
        (((8, 8, 1), L.Conv2D(4, 3)), ((9, 5, 3), L.Flatten()), ("Resizing", "Conv2D")),
        (((8, 8, 1), L.Conv2D(4, 3)), ((7,), L.Dense(2)), ("Flatten", "Dense")),
        (((6,), L.Dense(5)), ((4, 4, 2), L.Conv2D(2, 3)), ("Dense", "Reshape")),
        (((9, 2), L.LSTM(4, return_sequences=True)), ((9, 3), L.LSTM(2)), ("Conv1D",)),
        (((9, 2), L.Conv1D(4, 3)), ((5, 4), L.LSTM(2)), ("Flatten", "Dense", "Reshape")),
    ],
)
def test_adapters_lead_from_shape_to_shape_and_are_reported(
    first: tuple[tuple[int, ...], keras.Layer],
    second: tuple[tuple[int, ...], keras.Layer],
    layers: tuple[str, ...],
) -> None:
    members = [model_of(*first), model_of(*second, seed=1)]
    (planned,) = Chain.plan(members)
    fitted = Chain(training="later").fuse(members)
    assert fitted.adapters == (planned,)
    assert planned.layers == layers
    assert fitted.to_dict()["adapters"][0]["before"] == 2
    out = predicted(fitted.model, noise(3, *first[0]))
    assert out.shape == (3, *members[1].output_shape[1:])


def test_a_member_for_images_of_any_size_takes_them_as_they_are() -> None:
    first = model_of((8, 8, 1), L.Conv2D(3, 3))
    second = model_of((None, None, 3), L.GlobalAveragePooling2D(), seed=1)
    assert Chain.plan([first, second])[0].layers == ()


def labelled() -> tuple[np.ndarray, np.ndarray]:
    x = noise(256, 6)
    return x, (x[:, :3].sum(axis=1) > 0).astype(int)


def adapted() -> list[keras.Model]:
    first = model_of((6,), L.Dense(8, activation="relu"), L.BatchNormalization())
    second = model_of((5,), L.Dense(8, activation="relu"), L.Dense(2, activation="softmax"), seed=1)
    return [first, second]


@pytest.mark.parametrize("how", ["joint", pytest.param("stages", marks=pytest.mark.slow)])
def test_a_trained_chain_learns_and_leaves_its_members_alone(how: str) -> None:
    members = adapted()
    before = [state(member) for member in members]
    chain = Chain(training=how, epochs=8, batch_size=32, learning_rate=1e-2)  # type: ignore[arg-type]
    fitted = chain.fuse(members, labelled())
    assert len(fitted.losses) == (1 if how == "joint" else 2)
    assert fitted.losses[-1] < 0.4
    assert [state(member) for member in members] == before
    again = chain.fuse(members, labelled())
    assert state(again.model) == state(fitted.model)


def test_a_stage_trains_its_member_and_adapter_only_and_frozen_layers_stay_frozen() -> None:
    members = adapted()
    members[0].layers[0].trainable = False
    untrained = Chain(training="later").fuse(members).model
    chain = Chain(training="stages", epochs=1, learning_rate=1e-2)
    model = chain.fuse(members, labelled()).model
    frozen, start = (m.get_layer("member_1").layers[1] for m in (model, untrained))
    assert not frozen.trainable
    assert model.get_layer("member_1").layers[2].trainable
    assert state(frozen) == state(start)
    assert state(model.get_layer("member_2")) != state(untrained.get_layer("member_2"))


def test_the_first_may_take_several_inputs_and_the_last_give_several_outputs() -> None:
    a, b = keras.Input((3,), name="a"), keras.Input((2,), name="b")
    first = keras.Model({"a": a, "b": b}, L.Concatenate()([a, b]))
    t = keras.Input((5,))
    last = keras.Model(t, {"one": L.Dense(2)(t), "two": L.Dense(3)(t)})
    chain = Chain()([first, last])
    x = {"a": noise(4, 3), "b": noise(4, 2)}
    out = chain.predict_on_batch(x)
    assert set(out) == {"one", "two"}
    with pytest.raises(FusionError, match="Member 2 .* takes 2 inputs"):
        Chain()([model_of((5,), L.Dense(3)), first])
    with pytest.raises(FusionError, match="Member 1 .* gives 2 outputs"):
        Chain()([last, last])


def test_what_cannot_be_chained_is_refused_with_the_fix() -> None:
    f = model_of((6,), L.Dense(5))
    with pytest.raises(FusionError, match="at least two members"):
        Chain()([f])
    with pytest.raises(FusionError, match="needs training data"):
        Chain(training="joint")([f, f])
    with pytest.raises(FusionError, match="unknown"):
        Chain(training="never")  # type: ignore[arg-type]
    with pytest.raises(FusionError, match="without new layers .before member 2"):
        Chain()(adapted())
    tokens = keras.Sequential([keras.Input((5,), dtype="int32"), L.Embedding(9, 2)])
    with pytest.raises(FusionError, match="takes int32"):
        Chain()([f, tokens])
    anything = model_of((None, 3), L.GlobalAveragePooling1D())
    with pytest.raises(FusionError, match="No adapter leads from"):
        Chain()([f, anything])
