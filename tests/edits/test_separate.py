"""Convolutions are separated as closely as weights allow, and only where it pays."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

from saikei import Budget, Separate, profile
from saikei.edits.lowrank.convolutions import split_depthwise
from saikei.errors import BudgetError, EditError
from saikei.graph import build, read, replace_operations
from saikei.testing import assert_cuts_exactly, random_inputs, randomise_statistics

L = keras.layers


def run(model: keras.Model, x: Any) -> np.ndarray:
    return keras.ops.convert_to_numpy(model(x, training=False))


def distance(one: keras.Model, other: keras.Model) -> float:
    x = random_inputs(one, np.random.default_rng(0))
    first, second = run(one, x), run(other, x)
    return float(np.abs(first - second).max() / np.abs(first).max())


def network() -> keras.Model:
    keras.utils.set_random_seed(0)
    x = keras.Input((12, 12, 3))
    y = L.Conv2D(16, 3, activation="relu", name="first")(x)
    y = L.Conv2D(24, 3, padding="same", strides=2, activation="relu", name="second")(y)
    y = L.Conv2D(24, 1, name="point")(y)
    y = L.Conv2D(24, 5, padding="same", name="third")(y)
    model = keras.Model(x, L.Dense(4, name="head")(L.GlobalAveragePooling2D()(y)))
    randomise_statistics(model)
    return model


def make_separable(layer: keras.Layer, multiplier: int) -> None:
    """Give a convolution a kernel that so many filters for each input channel can make."""
    generator = np.random.default_rng(0)
    *window, given, made = layer.kernel.shape
    filters = generator.normal(size=(*window, given, multiplier))
    points = generator.normal(size=(given, multiplier, made)) / (np.prod(window) * given) ** 0.5
    layer.kernel.assign(np.einsum("...cm,cmo->...co", filters, points).astype("float32"))


CASES = {
    "valid": (L.Conv2D(12, 3), (9, 8, 4)),
    "same": (L.Conv2D(12, (2, 3), padding="same", activation="relu"), (9, 8, 4)),
    "strides": (L.Conv2D(12, 3, padding="same", strides=2), (9, 8, 4)),
    "dilation": (L.Conv2D(12, 3, padding="same", dilation_rate=2, use_bias=False), (9, 8, 4)),
    "few outputs": (L.Conv2D(2, 3), (9, 8, 4)),
    "series": (L.Conv1D(12, 4, strides=2), (9, 4)),
    "series, dilated": (L.Conv1D(12, 3, dilation_rate=2, padding="same"), (9, 4)),
}


@pytest.mark.parametrize("case", CASES)
def test_at_full_multiplier_a_separated_convolution_computes_the_same(case: str) -> None:
    layer, shape = CASES[case]
    layer = type(layer).from_config({**layer.get_config(), "name": "conv"})
    model = keras.Sequential([keras.Input(shape), layer])
    randomise_statistics(model)
    graph = read(model)
    splits = split_depthwise(graph, graph.operations["conv"])
    assert not isinstance(splits, str)
    (scheme,) = splits.schemes
    window = int(np.prod(layer.kernel_size))
    assert scheme.spectrum.rank == min(window, layer.filters)
    chain = scheme.chain("deep", scheme.spectrum.rank)
    separated = build(replace_operations(graph, {"conv": chain}))
    assert distance(model, separated) < 1e-5
    bias = layer.filters if layer.use_bias else 0
    costs = profile(separated, latency=False)
    assert costs.params - bias == scheme.params_per_rank * scheme.spectrum.rank
    assert costs.macs == scheme.macs_per_rank * scheme.spectrum.rank


@pytest.mark.parametrize("multiplier", [1, 2])
def test_a_separable_kernel_is_separated_exactly(multiplier: int) -> None:
    model = network()
    for name in ("second", "third"):
        make_separable(model.get_layer(name), multiplier)
    edit = Separate(depth_multiplier=multiplier, exclude=("first",))
    separated = edit(model)
    assert distance(model, separated) < 1e-5
    assert all(split.error < 1e-5 for split in edit.plan(model).splits)
    assert separated.get_layer("second_basis").depth_multiplier == multiplier
    assert separated.get_layer("second").kernel_size == (1, 1)
    assert separated.get_layer("second").activation is keras.activations.relu


def test_the_error_in_the_plan_is_that_of_the_weights() -> None:
    model = network()
    (split,) = Separate(layers=("third",)).plan(model).splits
    separated = Separate(layers=("third",))(model)
    deep = separated.get_layer("third_basis").get_weights()[0]
    points = separated.get_layer("third").get_weights()[0].reshape(24, 1, 24)
    kernel = model.get_layer("third").get_weights()[0]
    error = np.linalg.norm(np.einsum("hwcm,cmo->hwco", deep, points) - kernel)
    assert split.error == pytest.approx(error / np.linalg.norm(kernel), rel=1e-4)
    (better,) = Separate(layers=("third",), depth_multiplier=3).plan(model).splits
    assert better.error < split.error


def test_no_other_separation_is_closer() -> None:
    model = network()
    kernel = model.get_layer("third").get_weights()[0]
    (split,) = Separate(layers=("third",)).plan(model).splits
    generator = np.random.default_rng(0)
    for _ in range(20):
        # The best pointwise weights for random filters, by least squares.
        lost = 0.0
        for channel in range(kernel.shape[2]):
            target = kernel[:, :, channel].reshape(25, -1)
            filters = generator.normal(size=(25, 1))
            points = np.linalg.lstsq(filters, target, rcond=None)[0]
            lost += float(((filters @ points - target) ** 2).sum())
        assert split.error <= np.sqrt(lost) / np.linalg.norm(kernel)


def test_only_the_layers_of_least_error_are_separated_within_a_budget() -> None:
    model = network()
    make_separable(model.get_layer("third"), 1)
    costs = profile(model, latency=False).macs
    edit = Separate(Budget(macs=0.6))
    plan = edit.plan(model)
    assert [split.layer for split in plan.splits] == ["third"]
    assert plan.left_alone["second"] == "stays whole, as the limit allows"
    assert plan.left_alone["point"] == "is pointwise already"
    assert profile(edit(model), latency=False).macs <= 0.6 * costs


def test_a_share_is_of_the_macs_of_the_layers() -> None:
    model = network()
    layers = ("second", "third")
    plan = Separate(0.7, layers=layers).plan(model)
    whole = sum(s.macs[0] for s in Separate(layers=layers).plan(model).splits)
    saved = sum(s.macs[0] - s.macs[1] for s in plan.splits)
    assert (whole - saved) / whole <= 0.7
    with pytest.raises(BudgetError, match=r"brought down to 0\.0"):
        Separate(0.01, layers=layers)(model)
    with pytest.raises(EditError, match="second stays whole"):
        Separate(1.0, layers=layers)(model)


def test_what_cannot_be_separated_has_its_reason() -> None:
    x = keras.Input((12, 12, 4))
    y = L.Conv2D(8, 3, groups=2, padding="same", name="grouped")(x)
    y = L.Conv2D(8, 3, strides=(1, 2), padding="same", name="uneven")(y)
    y = L.Conv2D(1, 2, name="thin")(y)
    y = L.Conv1D(8, 3, padding="causal", name="causal")(L.Reshape((55, 1))(y))
    y = L.Conv3D(8, 3, name="volume")(L.Reshape((11, 5, 8, 1))(y))
    with pytest.raises(EditError) as caught:
        Separate()(keras.Model(x, y))
    for part in (
        "grouped has 2 groups",
        "uneven has strides (1, 2)",
        "thin is smaller as it is",
        "causal has causal padding",
        "volume slides over 3 axes",
    ):
        assert part in str(caught.value)


def test_a_multiplier_that_does_not_pay_is_named_with_the_largest_that_does() -> None:
    with pytest.raises(EditError, match=r"second would not be smaller .* of 9 \(at most 6\)"):
        Separate(depth_multiplier=9, layers=("second",))(network())


def test_a_shared_convolution_is_separated_once() -> None:
    x = keras.Input((8, 8, 12))
    shared = L.Conv2D(12, 3, padding="same", name="shared")
    model = keras.Model(x, shared(shared(x)))
    make_separable(shared, 1)
    separated = Separate()(model)
    assert distance(model, separated) < 1e-5
    assert [layer.name for layer in separated.layers[1:]] == ["shared_basis", "shared"]


def test_frozen_layers_and_the_dtype_policy_stay() -> None:
    layer = L.Conv2D(16, 3, dtype="mixed_bfloat16", kernel_regularizer="l2", name="conv")
    model = keras.Sequential([keras.Input((8, 8, 16)), layer])
    layer.trainable = False
    separated = Separate()(model)
    assert not separated.trainable_weights
    for name in ("conv_basis", "conv"):
        assert separated.get_layer(name).dtype_policy.name == "mixed_bfloat16"
    assert separated.get_layer("conv_basis").depthwise_regularizer is not None


def test_a_separated_model_can_be_pruned_exactly() -> None:
    assert assert_cuts_exactly(Separate()(network())).cut > 10


def test_data_brings_the_separated_model_closer() -> None:
    model = network()
    generator = np.random.default_rng(0)
    x, test = (generator.normal(size=(256, 12, 12, 3)).astype("float32") for _ in range(2))
    blind, fitted = Separate()(model), Separate()(model, (x, np.zeros(256)))
    errors = [np.linalg.norm(run(m, test) - run(model, test)) for m in (blind, fitted)]
    assert errors[1] < 0.9 * errors[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"keep": 0.0}, "above 0"),
        ({"keep": 1.5}, "at most 1"),
        ({"keep": 3}, "a Budget; None separates every layer"),
        ({"keep": True}, "give a (number|share), a Budget or None"),
        ({"depth_multiplier": 0}, "at least 1"),
        ({"depth_multiplier": 1.0}, "whole number"),
    ],
)
def test_bad_arguments_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(EditError, match=message):
        Separate(**arguments)


def test_a_layer_of_another_kind_is_refused() -> None:
    with pytest.raises(EditError, match="cannot split layer 'head' of kind Dense"):
        Separate(layers=("head",))(network())
