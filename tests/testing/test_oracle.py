"""The oracle's own inputs: what it feeds a model has to reach the outputs."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from saikei.testing import (
    assert_cuts_exactly,
    check_cut,
    random_inputs,
    randomise_statistics,
)
from saikei.testing.oracle import saved_and_loaded


def image_model(scale: float, offset: float) -> keras.Model:
    images = keras.Input((8, 8, 3))
    x = keras.layers.Rescaling(scale, offset)(images)
    x = keras.layers.Normalization()(x)
    x = keras.layers.Conv2D(8, 3)(x)
    x = keras.layers.BatchNormalization(epsilon=1e-9)(x)
    return keras.Model(images, keras.layers.Dense(2)(keras.layers.Flatten()(x)))


@pytest.mark.parametrize(("scale", "offset"), [(1 / 255, 0.0), (1 / 127.5, -1.0), (1.0, 0.0)])
def test_noise_is_normal_after_the_rescaling_that_a_model_starts_with(
    scale: float, offset: float
) -> None:
    model = image_model(scale, offset)
    batch = random_inputs(model, np.random.default_rng(0), samples=64)
    rescaled = np.asarray(batch, "float64") * scale + offset
    assert abs(rescaled.mean()) < 0.05 and abs(rescaled.std() - 1) < 0.05


def test_rounding_errors_stay_small_where_a_model_rescales_images() -> None:
    keras.utils.set_random_seed(0)
    # Noise of size 1 would be a hundred-thousandth of what is added to it.
    model = image_model(1e-5, 0.0)
    randomise_statistics(model)
    check = check_cut(model)
    assert check.cut > 0 and check.error <= 1e-5 and check.spread > 0.01


def test_inputs_keep_their_structure_dtypes_and_whole_numbers() -> None:
    tokens = keras.Input((None,), dtype="int32", name="tokens")
    image = keras.Input((4,), dtype="float16", name="image")
    both = keras.layers.Embedding(2, 4)(tokens) + keras.layers.Rescaling([1.0, 2, 3, 4])(image)
    model = keras.Model({"tokens": tokens, "image": image}, both)
    batch = random_inputs(model, np.random.default_rng(0))
    assert set(batch) == {"tokens", "image"}
    assert batch["tokens"].shape == (3, 8) and set(np.unique(batch["tokens"])) == {0, 1}
    assert batch["image"].dtype == "float16" and abs(batch["image"]).max() < 5


def test_a_mean_over_one_cut_axis_leaves_the_other_as_it_is() -> None:
    """RMS normalisation of each head, as transformers do it: both heads and width can be cut."""
    x = keras.Input((5, 6))
    heads = keras.layers.EinsumDense("btd,dnh->btnh", (None, 4, 8), name="query")(x)
    mean = keras.ops.mean(keras.ops.square(heads), axis=-1, keepdims=True)
    heads = heads * keras.ops.rsqrt(mean + 1e-6)
    flat = keras.layers.EinsumDense("btnh,nhd->btd", (None, 3), name="out")(heads)
    model = keras.Model(x, flat)
    for keep in range(4):
        check = check_cut(model, share=0.5, seed=keep, readers=True)
        assert check.cut == 2 + 4 and check.error <= 1e-5 and check.spread > 0.01


def test_a_signal_reaches_the_outputs_of_a_deep_network_without_normalisation() -> None:
    keras.utils.set_random_seed(0)
    x = inputs = keras.Input((16,))
    for _ in range(20):
        x = keras.layers.Dense(32, activation="relu")(x)
    model = keras.Model(inputs, keras.layers.Dense(3)(x))
    randomise_statistics(model)
    check = check_cut(model)
    assert check.spread > 1e-2 and check.error <= 1e-5


def test_the_oracle_looks_at_the_model_as_it_is_loaded_too() -> None:
    model = image_model(1.0, 0.0)
    randomise_statistics(model)
    assert assert_cuts_exactly(model).loaded
    loaded = saved_and_loaded(model)
    assert loaded is not None and loaded is not model
    for ours, theirs in zip(model.weights, loaded.weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_model_that_cannot_be_saved_is_looked_at_as_it_is() -> None:
    class Unsaved(keras.layers.Layer):
        def __init__(self, layer: object) -> None:
            super().__init__()
            self.layer = layer

        def call(self, x: object) -> object:
            return self.layer(x)  # type: ignore[operator]

    x = keras.Input((4,))
    hidden = Unsaved(keras.layers.Dense(6))(x)
    model = keras.Model(x, keras.layers.Dense(2)(hidden))
    check = assert_cuts_exactly(model)
    assert check.cut and not check.loaded
    with pytest.raises(NotImplementedError):
        assert_cuts_exactly(model, loaded=True)
