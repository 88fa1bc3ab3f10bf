"""A refit layer comes as close to what it gave before as its new input allows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers as L

from saikei import PruneChannels
from saikei.calibration import refit
from saikei.calibration.batch_norm import refit_batch_norm
from saikei.calibration.surviving_outputs import kept_outputs
from saikei.channels import map_channels
from saikei.edits.compensate import cut_and_refit
from saikei.edits.cut import cut
from saikei.errors import DataError
from saikei.graph import build, copy_model, new_operation, new_weight, read, replace_operations
from saikei.testing import random_mask, randomise_statistics
from tests.calibration.nets import NETS, data_for, made, outputs_of


def distance(one: list[np.ndarray], other: list[np.ndarray]) -> float:
    scale = sum(float(np.square(a - a.mean(axis=0)).sum()) for a in one)
    return sum(float(np.square(a - b).sum()) for a, b in zip(one, other, strict=True)) / scale


@pytest.mark.sampled
@pytest.mark.parametrize("name", NETS)
def test_a_graph_that_was_not_edited_stays_as_it_is(name: str) -> None:
    model = made(name)
    data = data_for(model)
    # A copy has variables of its own, so nothing shows that it is the same model.
    fitted = build(refit(read(model), read(copy_model(model)), data))
    assert distance(outputs_of(model, data[0]), outputs_of(fitted, data[0])) < 1e-10
    same = build(refit(read(model), read(model), data))
    for one, other in zip(model.get_weights(), same.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.sampled
@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", NETS)
def test_a_cut_model_comes_closer_to_the_original(name: str, seed: int) -> None:
    model = made(name, seed)
    data, fresh = data_for(model), data_for(model, seed=9)
    channel_map = map_channels(read(model))
    keep = random_mask(channel_map, 0.4, np.random.default_rng(seed))
    plain, fitted = build(cut(channel_map, keep)), build(cut_and_refit(channel_map, keep, data))
    for x in (data[0], fresh[0]):
        before = distance(outputs_of(model, x), outputs_of(plain, x))
        after = distance(outputs_of(model, x), outputs_of(fitted, x))
        assert after < 0.7 * before


@pytest.mark.parametrize("harmful", [True, False])
def test_a_fit_that_makes_the_outputs_worse_is_left_out(harmful: bool) -> None:
    """Three samples decide over the output, and least squares of the layer follow the others."""
    u = np.random.default_rng(0).uniform(-1, 1, (256, 1)).astype("float32")
    v = -u
    u[:300:100] = v[:300:100] = 4
    graphs = []
    for width in (2, 1):
        inputs = keras.Input((2,))
        last = L.ReLU(threshold=3.0 if harmful else 0.0)
        model = keras.Model(
            inputs, last(L.Dense(1, name="z")(L.Dense(width, name="first")(inputs)))
        )
        first, then = np.eye(2)[:, :width], [[0.0], [1.0]] if width == 2 else [[1.0]]
        model.get_layer("first").set_weights([first, np.zeros(width)])
        model.get_layer("z").set_weights([np.array(then), np.zeros(1)])
        graphs.append(read(model))
    original, edited = graphs
    assert (refit(original, edited, np.concatenate([u, v], axis=1)) is edited) == harmful


@keras.saving.register_keras_serializable("refit")
class Tied(keras.Model):
    """Tokens to logits by one table, used as embedding and, transposed, as the last kernel."""

    def __init__(self, reversible: bool, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        kind = L.ReversibleEmbedding if reversible else L.Embedding
        self.reversible, self.table = reversible, kind(20, 16)
        self.wide, self.narrow = L.Dense(32, activation="relu"), L.Dense(16)
        self.norm = L.RMSNormalization()

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "reversible": self.reversible}

    def call(self, tokens: Any) -> Any:
        hidden = self.table(tokens)
        hidden = self.norm(hidden + self.narrow(self.wide(hidden)))
        if self.reversible:
            return self.table(hidden, reverse=True)
        return keras.ops.matmul(hidden, keras.ops.transpose(self.table.embeddings))


@pytest.mark.parametrize("loaded", [False, True])
@pytest.mark.parametrize("reversible", [False, True])
def test_data_does_no_harm_where_embeddings_are_tied(
    reversible: bool, loaded: bool, tmp_path: Path
) -> None:
    keras.utils.set_random_seed(0)
    tokens = np.random.default_rng(0).integers(0, 20, (64, 6))
    model = Tied(reversible)
    model(tokens)
    if loaded:
        model.save(tmp_path / "tied.keras")
        model = keras.saving.load_model(tmp_path / "tied.keras")
    edit = PruneChannels(0.6, importance="magnitude")
    before = distance(outputs_of(model, tokens), outputs_of(edit(model), tokens))
    after = distance(outputs_of(model, tokens), outputs_of(edit(model, tokens), tokens))
    assert after <= before * (1 + 1e-6)


def test_dropped_channels_that_the_others_make_up_for_cost_nothing() -> None:
    """Twins of kept channels, through ReLU, pooling and normalisation."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 2)),
            L.Conv2D(8, 3, activation="relu", name="a"),
            L.MaxPooling2D(),
            L.BatchNormalization(),
            # Not padded: zeros around the picture are no multiple of anything.
            L.Conv2D(6, 3, activation="relu", name="b"),
            L.Flatten(),
            L.Dense(5, name="c"),
        ]
    )
    randomise_statistics(model)
    for name in ("a", "b"):
        kernel, bias = model.get_layer(name).get_weights()
        half = kernel.shape[-1] // 2
        kernel[..., half:], bias[half:] = 2 * kernel[..., :half], 2 * bias[:half]
        model.get_layer(name).set_weights([kernel, bias])
    channel_map = map_channels(read(model))
    keep = np.ones(channel_map.count, bool)
    for group in channel_map.groups:
        if group.free.all():
            keep[group.channels[group.size // 2 :]] = False
    data = data_for(model)
    fitted = build(cut_and_refit(channel_map, keep, data))
    assert (fitted.get_layer("a").filters, fitted.get_layer("b").filters) == (4, 3)
    x = data_for(model, seed=5)[0]
    assert distance(outputs_of(model, x), outputs_of(fitted, x)) < 1e-5
    bare = build(cut(channel_map, keep))
    assert distance(outputs_of(model, x), outputs_of(bare, x)) > 0.1


def test_a_constant_channel_goes_into_the_bias() -> None:
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((5,)), L.Dense(4, activation="sigmoid", name="a"), L.Dense(2, name="b")]
    )
    kernel, bias = model.get_layer("a").get_weights()
    kernel[:, 1], bias[1] = 0, 2.0
    model.get_layer("a").set_weights([kernel, bias])
    channel_map = map_channels(read(model))
    keep = np.ones(channel_map.count, bool)
    keep[channel_map.groups[0].channels[1]] = False
    data = data_for(model)
    fitted = build(cut_and_refit(channel_map, keep, data))
    assert distance(outputs_of(model, data[0]), outputs_of(fitted, data[0])) < 1e-9


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 9999), st.booleans(), st.booleans(), st.integers(1, 2))
def test_normalisation_is_never_further_from_its_target(
    seed: int, scale: bool, center: bool, calls: int
) -> None:
    layer = L.BatchNormalization(scale=scale, center=center, name="norm")
    model = keras.Sequential([keras.Input((3, 4)), layer])
    randomise_statistics(model, seed)
    generator = np.random.default_rng(seed)
    mix = generator.normal(size=(4, 4)) * 0.3 + np.eye(4)
    pairs = []
    for _ in range(calls):
        x = generator.normal(0.3, 1.4, size=(40, 3, 4)).astype(np.float32)
        pairs.append((x, outputs_of(model, x @ mix.astype(np.float32))[0]))

    def error() -> float:
        return sum(float(np.square(outputs_of(model, x)[0] - y).sum()) for x, y in pairs)

    before = error()
    operation = read(model).operations["norm"]
    fitted = refit_batch_norm(operation, pairs)
    layer.set_weights([weight.numpy() for weight in fitted.weights.values()])
    assert error() <= before * (1 + 1e-4)


def test_normalisation_learns_the_statistics_of_what_it_reads_now() -> None:
    layer = L.BatchNormalization(name="norm", momentum=0.0)
    model = keras.Sequential([keras.Input((4,)), layer])
    randomise_statistics(model)
    x = np.random.default_rng(0).normal(3.0, 2.0, size=(500, 4)).astype(np.float32)
    operation = read(model).operations["norm"]
    fitted = refit_batch_norm(operation, [(x, outputs_of(model, x - 1)[0])])
    np.testing.assert_allclose(fitted.weights["moving_mean"].numpy(), x.mean(0), rtol=1e-4)
    np.testing.assert_allclose(fitted.weights["moving_variance"].numpy(), x.var(0), rtol=1e-4)


def test_a_layer_of_another_shape_of_kernel_is_fitted_by_its_name() -> None:
    """What other edits need: a 5×5 kernel in the place of a 3×3 one learns to be it."""
    model = made("plain")
    graph = read(model)
    name = next(n for n, o in graph.operations.items() if o.kind == "Conv2D")
    old = graph.operations[name]
    layer = L.Conv2D(8, 5, activation="relu", padding="same", name=name)
    weights = {
        "kernel": new_weight(np.zeros((5, 5, 2, 8), np.float32)),
        "bias": old.weights["bias"],
    }
    edited = replace_operations(graph, {name: (new_operation(name, layer, weights),)})
    data = data_for(model)
    fitted = refit(graph, edited, data)
    found = fitted.operations[name].weights["kernel"].numpy()
    np.testing.assert_allclose(found[1:4, 1:4], old.weights["kernel"].numpy(), atol=1e-3)
    found[1:4, 1:4] = 0
    assert np.abs(found).max() < 1e-3


def test_a_layer_of_another_shape_of_output_is_left_alone() -> None:
    model = made("two_outputs")
    graph = read(model)
    channel_map = map_channels(graph)
    keep = random_mask(channel_map, 0.4, np.random.default_rng(0))
    smaller = cut(channel_map, keep)
    # Without the channels that were kept, the hidden layers have no counterpart.
    fitted = refit(graph, smaller, data_for(model))
    for name, operation in fitted.operations.items():
        if smaller.calls[-1].outputs and name in kept_outputs(channel_map, keep):
            masks = kept_outputs(channel_map, keep)[name]
            if any(mask is not None and not mask.all() for mask in masks):
                assert operation is smaller.operations[name]


def test_masked_steps_stay_masked() -> None:
    keras.utils.set_random_seed(0)
    tensor = keras.Input((6,), dtype="int32")
    x = L.Embedding(9, 8, mask_zero=True)(tensor)
    x = L.Dense(8, activation="relu")(x)
    model = keras.Model(tensor, L.Dense(2)(L.GlobalAveragePooling1D()(x)))
    tokens = np.random.default_rng(0).integers(0, 9, (120, 6))
    tokens[:, 3:] *= np.random.default_rng(1).integers(0, 2, (120, 3))
    tokens[:, 0] = 1
    channel_map = map_channels(read(model))
    keep = np.ones(channel_map.count, bool)
    keep[channel_map.groups[-2].channels[:2]] = False
    fitted = build(cut_and_refit(channel_map, keep, (tokens, np.zeros(120))))
    bare = build(cut(channel_map, keep))
    whole = outputs_of(model, tokens)
    after = distance(whole, outputs_of(fitted, tokens))
    assert after < 0.5 * distance(whole, outputs_of(bare, tokens))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "mixed_float16"])
def test_weights_keep_their_type_and_whether_they_are_trained(dtype: str) -> None:
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((10,)),
            L.Dense(12, activation="relu", dtype=dtype, name="a"),
            L.Dense(8, dtype=dtype, trainable=False, name="b"),
            L.Dense(3, dtype=dtype),
        ]
    )
    small = PruneChannels(0.5)(model, data_for(model))
    assert small.get_layer("b").trainable is False
    assert small.get_layer("b").dtype_policy.name == dtype
    assert all(np.isfinite(np.asarray(w, np.float32)).all() for w in small.get_weights())


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda x: x[:, :5], "shape"),
        (lambda x: np.full_like(x, np.nan), "NaN"),
        (lambda x: x[:0], "empty|samples"),
        (lambda x: [x, x], "2 inputs"),
        (lambda x: {"other": x}, "name them alike"),
    ],
)
def test_data_that_does_not_fit_is_refused(spoil: object, message: str) -> None:
    model = made("two_outputs")
    x, y = data_for(model)
    with pytest.raises(DataError, match=message):
        PruneChannels(0.5)(model, (spoil(x), y))  # type: ignore[operator]
