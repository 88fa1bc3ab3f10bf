"""Quantised layers are left whole with a reason, and `Dequantize` opens them."""

from __future__ import annotations

from functools import cache
from typing import Any

import keras
import numpy as np
import pytest

from saikei import (
    Average,
    Dequantize,
    DropChannels,
    Factorize,
    FoldBatchNorm,
    PruneChannels,
    Quantize,
    Recipe,
    ReplaceActivation,
    Soup,
    Sparsify,
    profile,
)
from saikei.errors import EditError, FusionError, ModelError, PinnedWarning
from saikei.graph import copy_model, read
from saikei.graph.internals import flattened_layers
from saikei.testing import assert_cuts_exactly, randomise_statistics

pytestmark = pytest.mark.backends

L = keras.layers
tokens = np.random.default_rng(0).integers(0, 12, (16, 5))


def network(attention: bool = False) -> keras.Model:
    keras.utils.set_random_seed(0)
    given = keras.Input((5,), dtype="int32", name="tokens")
    y = L.Embedding(12, 7, name="table")(given)
    if attention:
        y = L.MultiHeadAttention(2, 3, name="attention")(y, y)
    y = L.EinsumDense("btc,cd->btd", (None, 9), bias_axes="d", name="einsum")(y)
    y = L.GlobalAveragePooling1D(name="mean")(y)
    y = L.Dense(5, name="hidden")(y)
    y = L.BatchNormalization(name="norm")(y)
    model = keras.Model(given, L.Dense(3, activation="softmax", name="out")(y))
    randomise_statistics(model)
    return model


def quantised(mode: str, attention: bool = False, only: str | None = None) -> keras.Model:
    model = network(attention)
    for part in flattened_layers(model if only is None else model.get_layer(only)):
        # Tables know no float8.
        tables = (L.Embedding,) if mode != "float8" else ()
        if isinstance(part, (L.Dense, L.EinsumDense, *tables)):
            part.quantize(mode)
    return model


@cache
def in_four_bits() -> keras.Model:
    """For edits, which leave it as it is."""
    return quantised("int4")


@cache
def opened() -> keras.Model:
    return Dequantize()(in_four_bits())


def predictions(model: keras.Model) -> np.ndarray:
    return keras.ops.convert_to_numpy(model(tokens, training=False))


@pytest.mark.long
@pytest.mark.parametrize("mode", [pytest.param("int8", marks=pytest.mark.long), "int4", "float8"])
def test_the_weights_are_those_that_the_quantised_layers_stand_for(mode: str) -> None:
    model, original = quantised(mode, attention=True), network(attention=True)
    plain = Dequantize()(model)
    assert [w.shape for w in plain.weights] == [w.shape for w in original.weights]
    assert all(layer.dtype_policy.name == "float32" for layer in plain.layers)
    step = {"int8": 1 / 127, "int4": 1 / 7, "float8": 1e-6}[mode]
    for ours, theirs in zip(plain.weights, original.weights, strict=True):
        bound = step * np.abs(theirs.numpy()).max() + 1e-6
        assert np.abs(ours.numpy() - theirs.numpy()).max() <= bound, ours.path
        assert ours.trainable == theirs.trainable
    if mode == "int4":
        # The others round their inputs too.
        np.testing.assert_allclose(predictions(plain), predictions(model), atol=1e-5)


@pytest.mark.long
@pytest.mark.parametrize("mode", ["int4"])
def test_what_was_quantised_can_then_be_cut_and_quantised_again(mode: str) -> None:
    model = quantised(mode, attention=True)
    assert assert_cuts_exactly(Dequantize()(model), share=0.4).cut > 5
    smaller = Recipe([Dequantize(), PruneChannels(0.5)])(model)
    assert smaller.get_layer("hidden").units < 5
    smaller.get_layer("hidden").quantize(mode)
    with pytest.raises(EditError, match="'hidden' is quantised"):
        DropChannels({"hidden": (0,)})(smaller)


@pytest.mark.sampled
@pytest.mark.filterwarnings("ignore::saikei.errors.PinnedWarning")
@pytest.mark.parametrize(
    "edit",
    [
        DropChannels({"hidden": (0,)}),
        PruneChannels(0.5),
        Factorize(0.5, layers=("hidden",)),
        FoldBatchNorm(),
        Sparsify(0.5),
        Sparsify(0.5, layers=("hidden",)),
    ],
    ids=lambda edit: type(edit).__name__,
)
def test_an_edit_that_would_change_a_quantised_layer_names_the_fix(edit: Any) -> None:
    with pytest.raises(EditError, match="quantised"):
        edit(in_four_bits())
    assert edit(opened()) is not None


@pytest.mark.parametrize("mode", ["int8", "float8"])
def test_layers_around_a_quantised_one_are_cut_and_it_stays_as_it_is(mode: str) -> None:
    model = quantised(mode, only="out")
    smaller = DropChannels({"table": (2,)})(model)
    kept = {w.path: w.numpy() for w in smaller.get_layer("out").weights}
    for weight in model.get_layer("out").weights:
        np.testing.assert_array_equal(kept[weight.path], weight.numpy())
    assert smaller.get_layer("out").dtype_policy == model.get_layer("out").dtype_policy
    with pytest.warns(PinnedWarning, match="'out' is quantised"):
        PruneChannels(0.5)(model)
    assert assert_cuts_exactly(model, share=0.4).cut > 3


@pytest.mark.parametrize("mode", ["int8", pytest.param("int4", marks=pytest.mark.long), "float8"])
def test_costs_and_copies_of_quantised_layers(mode: str, tmp_path: Any) -> None:
    model = quantised(mode)
    whole, found = profile(network(), latency=False), profile(model, latency=False)
    # On torch Keras gives the outputs of a quantised EinsumDense no size.
    assert found.macs == whole.macs or keras.config.backend() == "torch"
    assert not found.uncounted and not found.zeros
    assert found.params == model.count_params()
    assert "quantised" in {layer.name: layer for layer in found.layers}["hidden"].pinned
    for same in (copy_model(model), Average()([model, model])):
        np.testing.assert_allclose(predictions(same), predictions(model), atol=1e-6)
    changed = ReplaceActivation("softmax", "sigmoid", layers=("out",))(model)
    changed.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(predictions(loaded), predictions(changed), atol=1e-6)


def test_what_keras_cannot_make_again_and_what_cannot_be_averaged_is_refused() -> None:
    model = quantised("int8", attention=True)
    with pytest.raises(ModelError, match=r"'attention' .*Dequantize\(\)"):
        Average()([model, model])
    with pytest.raises(FusionError, match=r"quantised .*Dequantize\(\)"):
        Soup(check=False, align=False)([model, model])
    plain = Dequantize()(model)
    assert Average()([plain, plain]) is not None
    assert Soup(check=False, align=False, recalibrate=False)([plain, plain]) is not None
    with pytest.raises(EditError, match="no quantised layer"):
        Dequantize()(plain)


def test_only_the_chosen_layers_are_dequantised() -> None:
    graph = read(quantised("int8"))
    names = [name for name, operation in graph.operations.items() if operation.quantised]
    for edit in (Dequantize(layers=names[:1]), Dequantize(exclude=names[1:])):
        made = edit.apply(graph).operations
        assert [name for name in names if made[name].quantised] == names[1:]
    with pytest.raises(EditError, match="not quantised: leave it out"):
        Dequantize(layers=[next(n for n in graph.operations if n not in names)]).apply(graph)


def test_a_quantised_layer_is_no_reason_for_gradients_to_fail() -> None:
    model = quantised("int8", only="out")
    data = (tokens, np.arange(len(tokens)) % 3)
    with pytest.warns(PinnedWarning):
        cut = PruneChannels(0.5, importance="taylor", exclude=())(model, data)
    assert cut.count_params() < model.count_params()


@pytest.mark.long
def test_quantised_layers_take_a_quarter_of_the_bytes_and_give_nearly_the_same() -> None:
    model = network(attention=True)
    edited = Quantize(exclude=("out",))(model)
    assert edited.get_layer("table").quantization_mode == "int8"
    before, after = profile(model), profile(edited)
    assert after.bytes < 0.8 * before.bytes
    assert after.macs == before.macs
    change = edited.predict(tokens, verbose=0) - model.predict(tokens, verbose=0)
    assert 0 < np.abs(change).max() < 0.05
    again = Dequantize()(edited)
    np.testing.assert_allclose(
        again.predict(tokens, verbose=0), model.predict(tokens, verbose=0), atol=0.05
    )


@pytest.mark.parametrize(
    ("edit", "match"),
    [
        (Quantize(("missing",)), "missing"),
        (Quantize(exclude=("table", "einsum", "hidden", "out")), "would change nothing"),
    ],
)
def test_what_cannot_be_quantised_is_refused(edit: Quantize, match: str) -> None:
    with pytest.raises(EditError, match=match):
        edit(network())
