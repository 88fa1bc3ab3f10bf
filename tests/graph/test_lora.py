"""Layers with LoRA count as what they compute with: the kernel and its factors in one."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest

from saikei import (
    Average,
    DropChannels,
    FoldBatchNorm,
    PruneChannels,
    ReplaceActivation,
    Soup,
    Sparsify,
    fit,
    profile,
)
from saikei.errors import InputError
from saikei.graph import copy_model
from saikei.graph.internals import flattened_layers
from saikei.testing import assert_cuts_exactly

pytestmark = pytest.mark.backends

L = keras.layers
x = np.random.default_rng(0).normal(size=(24, 6, 8)).astype("float32")


def with_lora(seed: int = 0) -> keras.Model:
    """Every kind of layer that can have LoRA, with factors that change its kernel."""
    keras.utils.set_random_seed(0)
    given = keras.Input((6, 8), name="given")
    y = L.MultiHeadAttention(2, 4, name="attention")(given, given)
    y = L.TimeDistributed(L.Dense(8, activation="relu", name="step"), name="steps")(y)
    y = L.EinsumDense("btc,cd->btd", (None, 8), bias_axes="d", name="einsum")(y)
    y = L.Conv1D(8, 3, name="conv")(y)
    y = L.BatchNormalization(name="norm")(y)
    y = L.Activation("relu", name="relu")(y)
    y = L.GlobalAveragePooling1D(name="mean")(y)
    y = L.Dense(8, activation="relu", name="hidden")(y)
    model = keras.Model(given, L.Dense(3, activation="softmax", name="out")(y))
    enable_lora(model, np.random.default_rng(seed))
    return model


def enable_lora(model: keras.Model, generator: np.random.Generator) -> None:
    for part in flattened_layers(model):
        if hasattr(part, "enable_lora") and part.name not in ("out", "key"):
            part.enable_lora(2, lora_alpha=3)
            for factor in part.weights:
                if "lora" in factor.path:
                    factor.assign(generator.normal(0, 0.5, factor.shape))


def predictions(model: keras.Model) -> np.ndarray:
    return keras.ops.convert_to_numpy(model(x, training=False))


def table_of(model: keras.Model) -> np.ndarray:
    return keras.ops.convert_to_numpy(model.get_layer("table").embeddings)


def reloaded(model: keras.Model, folder: Path) -> keras.Model:
    model.save(folder / "model.keras")
    return keras.saving.load_model(folder / "model.keras")


def test_a_copy_computes_the_same_without_lora() -> None:
    model = with_lora()
    before = [w.numpy() for w in model.weights]
    copy = copy_model(model)
    np.testing.assert_allclose(predictions(copy), predictions(model), atol=1e-5)
    assert not any("lora" in weight.path for weight in copy.weights)
    assert all(weight.trainable for weight in copy.get_layer("hidden").weights)
    assert copy.get_layer("hidden").get_config().get("lora_rank") is None
    assert profile(model, latency=False).params == profile(copy, latency=False).params
    for weight, numbers in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(weight.numpy(), numbers)


def test_cutting_silent_channels_is_exact_under_lora() -> None:
    assert assert_cuts_exactly(with_lora(), share=0.4).cut > 10


@pytest.mark.sampled
@pytest.mark.parametrize(
    "edit",
    [
        DropChannels({"hidden": (0, 1), "conv": (2,)}),
        PruneChannels(0.5),
        FoldBatchNorm(),
        ReplaceActivation("relu", "elu"),
        Sparsify(0.5),
    ],
    ids=lambda edit: type(edit).__name__,
)
def test_an_edit_of_a_model_with_lora_is_that_of_the_merged_one(
    edit: PruneChannels, tmp_path: Path
) -> None:
    model = with_lora()
    edited, expected = edit(model), edit(copy_model(model))
    assert edited.count_params() == expected.count_params()
    np.testing.assert_allclose(predictions(edited), predictions(expected), atol=1e-5)
    np.testing.assert_allclose(predictions(reloaded(edited, tmp_path)), predictions(edited))


def test_a_loaded_model_still_has_lora_and_is_edited_like_the_built_one(tmp_path: Path) -> None:
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((6, 8)), L.Flatten(), L.Dense(6, name="a"), L.Dense(3)])
    enable_lora(model, np.random.default_rng(0))
    loaded = reloaded(model, tmp_path)
    assert loaded.get_layer("a").lora_enabled
    cut = [DropChannels({"a": (0, 5)})(m) for m in (model, loaded)]
    assert all(m.get_layer("a").units == 4 for m in cut)
    np.testing.assert_allclose(predictions(cut[0]), predictions(cut[1]), atol=1e-5)


def test_a_table_with_lora_is_cut_and_kept_whole() -> None:
    keras.utils.set_random_seed(0)
    tokens = keras.Input((5,), dtype="int32")
    y = L.Embedding(12, 6, name="table")(tokens)
    model = keras.Model(tokens, L.Dense(4)(y))
    model.get_layer("table").enable_lora(2)
    model.get_layer("table").lora_embeddings_b.assign(np.ones((2, 6)))
    assert assert_cuts_exactly(model, share=0.5).cut == 3
    edited = DropChannels({"table": (1,)})(model)
    expected = np.delete(table_of(model), 1, axis=1)
    np.testing.assert_allclose(table_of(edited), expected, 1e-5)


def test_fusions_take_the_merged_kernels() -> None:
    members = [with_lora(1), with_lora(2)]
    merged = [copy_model(member) for member in members]
    for fusion in (Average(), Soup(check=False, align=False, recalibrate=False)):
        fused, expected = fusion(members), fusion(merged)
        np.testing.assert_allclose(predictions(fused), predictions(expected), atol=1e-5)


def test_zeros_stay_zeros_and_training_lora_that_would_fill_them_is_refused() -> None:
    keras.utils.set_random_seed(0)
    layers = [keras.Input((6, 8)), L.Flatten(), L.Dense(8, name="a"), L.Dense(3)]
    model = Sparsify(0.5, layers=("a",))(keras.Sequential(layers))
    model.get_layer("a").enable_lora(2)
    data = (x, np.arange(len(x)) % 3)
    for settings in ({}, {"sparsify": Sparsify(0.8), "keep_zeros": False}):
        with pytest.raises(InputError, match=r"'a' has zeros .*copy_model\(model\)"):
            fit(model, data, data, epochs=1, **settings)
    fixed = copy_model(model)
    fit(fixed, data, data, epochs=2)
    kernel = np.asarray(fixed.get_layer("a").kernel)
    assert (kernel == 0).sum() == kernel.size // 2
    fit(model, data, data, epochs=1, keep_zeros=False)
    assert model.get_layer("a").lora_enabled
