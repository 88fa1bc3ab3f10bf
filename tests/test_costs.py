"""What models cost that take inputs of any size."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers as L

import saikei as sk
from saikei.errors import BudgetError, ModelError
from saikei.modelfile import load_model, save_model


def unet(size: int | None) -> keras.Model:
    keras.utils.set_random_seed(0)
    tensor = keras.Input((size, size, 1), name="image")
    skip = L.Conv2D(8, 3, padding="same", activation="relu", name="down")(tensor)
    x = L.Conv2D(16, 3, padding="same", activation="relu", name="mid")(L.MaxPooling2D(2)(skip))
    x = L.Concatenate()([L.UpSampling2D()(x), skip])
    x = L.Conv2D(8, 3, padding="same", activation="relu", name="up")(x)
    return keras.Model(tensor, L.Conv2D(2, 1, activation="softmax", name="out")(x))


def tokens(size: int | None) -> keras.Model:
    keras.utils.set_random_seed(0)
    tensor = keras.Input((size,), dtype="int32", name="words")
    x = L.Embedding(20, 16)(tensor)
    x = L.LayerNormalization()(x + L.MultiHeadAttention(2, 8, name="attention")(x, x))
    x = L.LayerNormalization()(x + L.Dense(16, name="second")(L.Dense(32, name="first")(x)))
    return keras.Model(tensor, L.Dense(3, name="out")(L.LSTM(8)(x)))


def two_lengths(size: int | None) -> keras.Model:
    keras.utils.set_random_seed(0)
    sound = keras.Input((size and size * 2, 4), name="sound")
    words = keras.Input((size, 3), name="words")
    x = L.GlobalMaxPooling1D()(L.Conv1D(16, 5, activation="relu", name="conv")(sound))
    x = L.Concatenate()([x, L.GRU(16, name="gru")(words)])
    return keras.Model([sound, words], L.Dense(2, name="out")(x))


SIZES: dict[Callable[[int | None], keras.Model], Any] = {
    unet: (16, 16, 1),
    tokens: (16,),
    two_lengths: {"words": (16, 3), "sound": (32, 4)},
}
every_model = pytest.mark.parametrize("net", SIZES, ids=lambda net: net.__name__)


def arrays(net: Any) -> Any:
    draw = np.random.default_rng(0).integers
    shapes = SIZES[net]
    if isinstance(shapes, dict):
        x: Any = [draw(0, 9, (8, *shapes[n])).astype("float32") for n in ("sound", "words")]
    else:
        x = draw(0, 9, (8, *shapes)).astype("int32" if net is tokens else "float32")
    return x, draw(0, 2, (8, *((16, 16) if net is unet else ())))


@every_model
def test_an_unknown_axis_costs_what_the_same_size_costs_when_it_is_known(
    net: Callable[[int | None], keras.Model],
) -> None:
    fixed = sk.profile(net(16), latency=False)
    asked = sk.profile(net(None), latency=False, input_shape=SIZES[net])
    assert asked.macs == fixed.macs
    assert asked.memory == fixed.memory
    assert [layer.macs for layer in asked.layers] == [layer.macs for layer in fixed.layers]
    assert not fixed.sizes and not asked.assumed


@every_model
def test_a_budget_is_kept_at_the_size_of_the_data_and_with_the_model_loaded(
    net: Callable[[int | None], keras.Model], tmp_path: Any
) -> None:
    model, shape = net(None), SIZES[net]
    whole = sk.profile(model, latency=False, input_shape=shape).macs
    path = tmp_path / "model.keras"
    save_model(model, path)
    # Refitting runs the cut model, and JAX wants keys and values of one width.
    edit = sk.PruneChannels(sk.Budget(macs=0.6), importance="magnitude", compensate=False)
    reached = []
    for given in (model, load_model(path)):
        small = edit(given, arrays(net))
        reached.append(sk.profile(small, latency=False, input_shape=shape).macs / whole)
    assert reached[0] == reached[1] and 0.4 < reached[0] <= 0.6
    fixed = edit(net(16))
    assert sk.profile(fixed, latency=False).macs / whole == reached[0]
    assert sk.profile(edit(model, input_shape=shape), latency=False, input_shape=shape).macs == (
        sk.profile(fixed, latency=False).macs
    )


@pytest.mark.parametrize(
    ("net", "edit"),
    [
        (unet, sk.Factorize(sk.Budget(macs=0.7), compensate=False)),
        (tokens, sk.Factorize(sk.Budget(macs=0.9), compensate=False)),
        (tokens, sk.RemoveLayers(sk.Budget(macs=0.7), ranking="weights")),
        (tokens, sk.Recipe([sk.PruneChannels(0.5), sk.PruneChannels(sk.Budget(macs=0.9))])),
    ],
    ids=["unet-Factorize", "tokens-Factorize", "tokens-RemoveLayers", "tokens-Recipe"],
)
def test_other_edits_count_like_the_same_size_when_it_is_known(net: Any, edit: Any) -> None:
    free = edit(net(None), None, SIZES[net])
    fixed = sk.profile(edit(net(16)), latency=False)
    assert sk.profile(free, latency=False, input_shape=SIZES[net]).macs == fixed.macs


def test_what_is_assumed_is_printed_and_no_latency_is_measured_of_it() -> None:
    costs = sk.profile(unet(None))
    assert costs.latency is None and costs.assumed == ("image",)
    note = "the size of 'image' is unknown and assumed to be 128×128×1"
    assert note in str(costs)
    assert costs.to_dict()["sizes"] == {"image": [128, 128, 1]}
    assert costs.macs == sk.profile(unet(128), latency=False).macs
    asked = sk.profile(unet(None), input_shape=(16, 16, 1))
    assert asked.latency is not None and "taken to be 16×16×1" in str(asked)


def test_a_budget_on_what_no_size_is_known_of_asks_for_data() -> None:
    whole, half = keras.Input((None, 2), name="whole"), keras.Input((None, 2), name="half")
    x = L.Conv1D(8, 3, name="conv")(whole + L.UpSampling1D()(half))
    model = keras.Model([whole, half], L.Dense(1)(x))
    costs = sk.profile(model)
    assert len(costs.uncounted) == 2 and "conv" in costs.uncounted
    assert "could not be assumed" in str(costs)
    edit = sk.PruneChannels(sk.Budget(macs=0.5))
    with pytest.raises(BudgetError, match="limits MACs, but layer 'conv'"):
        edit(model)
    x = [np.ones((4, 16, 2), "float32"), np.ones((4, 8, 2), "float32")]
    shape = [(16, 2), (8, 2)]
    before, after = (
        sk.profile(m, latency=False, input_shape=shape)
        for m in (model, edit(model, (x, np.ones((4, 14, 1)))))
    )
    assert after.macs <= 0.5 * before.macs
    # Parameters are known at any size.
    small = sk.PruneChannels(sk.Budget(params=0.6))(model)
    assert small.count_params() <= 0.6 * model.count_params()
    with pytest.raises(ModelError, match="a latency is measured at one size"):
        sk.PruneChannels(sk.Budget(latency=0.5))(model)


def test_a_length_that_an_equation_hides_is_counted() -> None:
    tensor = keras.Input((64, 8))
    x = L.EinsumDense("abc,cd->abd", (None, 32), name="up")(tensor)
    x = L.MultiHeadAttention(2, 16, name="attention")(L.Dense(32, name="mid")(x), x)
    model = keras.Model(tensor, L.Dense(3, name="out")(L.GlobalAveragePooling1D()(x)))
    macs = {layer.name: layer.macs for layer in sk.profile(model, latency=False).layers}
    assert macs["up"] == 64 * 8 * 32 and macs["mid"] == 64 * 32 * 32
    assert macs["attention"] == 64 * 32 * 32 * 4 + 64 * 64 * 32 * 2


def test_a_batch_axis_that_holds_positions_is_counted() -> None:
    tensor = keras.Input((6, 4))
    x = L.Dense(5, name="each")(keras.ops.reshape(tensor, (-1, 4)))
    model = keras.Model(tensor, keras.ops.reshape(x, (-1, 6, 5)))
    costs = sk.profile(model, latency=False)
    assert costs.macs == 6 * 4 * 5
    split = sk.Factorize(rank=1)(model)
    assert sk.profile(split, latency=False).macs == 6 * (4 + 5)


def test_a_cascade_costs_what_its_members_cost_at_the_same_size() -> None:
    def classifier(width: int, size: int | None) -> keras.Model:
        tensor = keras.Input((size, 3), name=f"sound_{width}")
        x = L.GlobalMaxPooling1D()(L.Conv1D(width, 3)(tensor))
        return keras.Model(tensor, L.Dense(2, activation="softmax")(x), name=f"w{width}")

    free, fixed = (
        sk.Cascade(thresholds=(0.9,))([classifier(width, size) for width in (4, 8)])
        for size in (None, 16)
    )
    costs = sk.profile(free, batch_size=2, input_shape=(16, 3))
    assert costs.macs == sk.profile(fixed, latency=False).macs
    assert costs.latency is not None
