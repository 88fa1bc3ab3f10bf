"""What members of a fused model compute alike is computed once, and weights are folded."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras import layers as L

import saikei as sk
from saikei import Average, Multimodal, Stack
from saikei.graph import copy_model


def backbone(frozen: bool = True) -> keras.Model:
    """Convolutions with a shortcut and BatchNormalization, and numbers that are not the initial."""
    keras.utils.set_random_seed(0)
    x = keras.Input((6, 6, 2), name="image")
    h = L.Conv2D(4, 3, padding="same", name="conv")(L.Rescaling(0.5)(x))
    h = L.Activation("relu")(L.BatchNormalization(name="norm")(h))
    h = L.Add()([h, L.Dropout(0.3)(L.Conv2D(4, 1, name="side")(h))])
    model = keras.Model(x, L.GlobalAveragePooling2D()(h), name="backbone")
    generator = np.random.default_rng(1)
    model.set_weights([generator.uniform(0.5, 1, w.shape) for w in model.get_weights()])
    model.trainable = not frozen
    return model


def member(seed: int, base: keras.Model, end: str = "softmax") -> keras.Model:
    """A head of its own on a copy of the backbone."""
    own = copy_model(base)
    keras.utils.set_random_seed(seed)
    return keras.Model(own.input, L.Dense(3, activation=end, name="head")(own.output))


def images(n: int = 20) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(n, 6, 6, 2)).astype("float32")


def predicted(model: keras.Model, x: Any) -> np.ndarray:
    return np.asarray(model.predict_on_batch(x))


def macs(model: keras.Model) -> int:
    return sk.profile(model, latency=False).macs


def together(members: list[keras.Model], x: Any, weights: Any = None) -> np.ndarray:
    return np.average([predicted(one, x) for one in members], axis=0, weights=weights)


@pytest.mark.parametrize("weights", [None, (0.2, 0.3, 0.5)])
def test_frozen_layers_that_members_share_are_computed_once(weights: Any) -> None:
    base = backbone()
    members = [member(seed, base) for seed in (1, 2, 3)]
    before = [[w.tobytes() for w in one.get_weights()] for one in members]
    x = images()
    fused = Average(weights)(members)
    assert macs(fused) == macs(base) + 3 * (macs(members[0]) - macs(base))
    assert fused.count_params() == base.count_params() + 3 * (4 * 3 + 3)
    np.testing.assert_allclose(predicted(fused, x), together(members, x, weights), atol=1e-6)
    assert [[w.tobytes() for w in one.get_weights()] for one in members] == before


def test_what_differs_in_one_number_or_can_be_trained_stays_apart() -> None:
    base, other = backbone(), backbone()
    kernel, *rest = other.get_layer("side").get_weights()
    kernel = kernel.copy()
    kernel[0, 0, 0, 0] = np.nextafter(kernel[0, 0, 0, 0], 9)
    other.get_layer("side").set_weights([kernel, *rest])
    members = [member(1, base), member(2, other)]
    fused = Average()(members)
    # Up to the changed layer all is shared, from there on nothing.
    conv = macs(keras.Model(base.input, base.get_layer("conv").output))
    assert macs(fused) == sum(macs(one) for one in members) - conv
    np.testing.assert_allclose(predicted(fused, images()), together(members, images()), atol=1e-6)
    live = backbone(frozen=False)
    members = [member(1, live), member(2, live)]
    fused = Average()(members)
    assert macs(fused) == sum(macs(one) for one in members)
    assert {"member_1", "member_2"} <= {layer.name for layer in fused.layers}


def test_layers_without_weights_alone_are_no_reason_to_flatten_a_model() -> None:
    members = []
    for seed in (1, 2):
        keras.utils.set_random_seed(seed)
        members.append(keras.Sequential([keras.Input((2, 2)), L.Flatten(), L.Dense(2)]))
    fused = Average()(members)
    assert "member_1" in {layer.name for layer in fused.layers}


def test_weights_of_an_average_are_folded_into_linear_layers() -> None:
    base = backbone()
    members = [member(seed, base, end="linear") for seed in (1, 2)]
    fused = Average((0.25, 0.75))(members)
    assert "Rescaling" not in [type(one).__name__ for one in fused.layers[2:]]
    np.testing.assert_allclose(
        predicted(fused, images()), together(members, images(), (0.25, 0.75)), atol=1e-6
    )
    # Behind a softmax they cannot be.
    soft = Average((0.25, 0.75))([member(seed, base) for seed in (1, 2)])
    assert [type(one).__name__ for one in soft.layers].count("Rescaling") == 3


def test_stacks_and_multimodal_models_share_too() -> None:
    base = backbone()
    members = [member(seed, base) for seed in (1, 2)]
    x, y = images(90), np.arange(90) % 3
    stacked = Stack()(members, (x, y))
    assert macs(stacked) < 2 * macs(members[0])
    fused = Multimodal()(members, ({"image": x}, y))
    assert macs(fused) < 2 * macs(members[0])


def test_a_shared_model_is_saved_and_trained_on(tmp_path: Any) -> None:
    base = backbone()
    members = [member(seed, base) for seed in (1, 2)]
    x, y = images(30), np.arange(30) % 3
    fused = Average()(members)
    fused.save(f"{tmp_path}/fused.keras")
    loaded = keras.saving.load_model(f"{tmp_path}/fused.keras")
    np.testing.assert_array_equal(predicted(loaded, x), predicted(fused, x))
    frozen = [w.numpy() for w in fused.non_trainable_weights]
    sk.fit(fused, (x, y), epochs=1, learning_rate=1e-3, progress=False)
    for one, other in zip(frozen, fused.non_trainable_weights, strict=False):
        np.testing.assert_array_equal(one, other.numpy())


def test_what_members_were_trained_on_is_still_known() -> None:
    base = backbone()
    members = [member(seed, base) for seed in (1, 2)]
    x, y = images(30), np.arange(30) % 3
    sk.fit(members[0], (x, y), epochs=1, learning_rate=1e-3, progress=False)
    fused = Average()(members)
    with pytest.raises(sk.SaikeiError, match="trained on 30"):
        Average("learn")([fused, members[1]], (x, y))
