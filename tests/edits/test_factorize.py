"""Layers are split into products that are the closest of their rank, and pay."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import keras
import numpy as np
import pytest

from saikei import Budget, Factorize, profile
from saikei.edits.lowrank.convolutions import split_conv
from saikei.edits.lowrank.spectrum import Spectrum
from saikei.errors import BudgetError, EditError
from saikei.graph import build, read, replace_operations
from saikei.testing import assert_cuts_exactly, random_inputs, randomise_statistics

L = keras.layers


def run(model: keras.Model, x: Any) -> list[np.ndarray]:
    outputs = keras.tree.flatten(model(x, training=False))
    return [keras.ops.convert_to_numpy(keras.ops.cast(y, "float32")) for y in outputs]


def distance(one: keras.Model, other: keras.Model) -> float:
    """Largest difference of an output, relative to its largest value."""
    x = random_inputs(one, np.random.default_rng(0))
    pairs = zip(run(one, x), run(other, x), strict=True)
    return max(float(np.abs(a - b).max() / np.abs(a).max()) for a, b in pairs)


def lower_rank(layer: keras.Layer, rank: int, rows: int) -> None:
    """Make the kernel of a layer, laid out with so many rows, of exactly this rank."""
    generator = np.random.default_rng(0)
    kernel = layer.get_weights()[0]
    factors = (
        generator.normal(size=(rows, rank)),
        generator.normal(size=(rank, kernel.size // rows)),
    )
    product = (factors[0] @ factors[1]).reshape(kernel.shape).astype(kernel.dtype)
    layer.set_weights([product / np.sqrt(rows), *layer.get_weights()[1:]])


def network() -> keras.Model:
    keras.utils.set_random_seed(0)
    x = keras.Input((16, 16, 3))
    y = L.Conv2D(16, 3, activation="relu", name="first")(x)
    y = L.Conv2D(24, 3, padding="same", strides=2, name="second")(y)
    y = L.Conv2D(24, (5, 3), dilation_rate=2, padding="same", name="wide")(L.ReLU()(y))
    y = L.Dense(48, activation="relu", name="hidden")(L.Flatten(name="flatten")(y))
    model = keras.Model(x, L.Dense(10, activation="softmax", name="classes")(y))
    randomise_statistics(model)
    return model


@pytest.mark.parametrize("shape", [(1, 7, 7), (1, 9, 4), (1, 4, 9), (3, 6, 5), (2, 5, 1)])
def test_a_truncation_loses_exactly_the_discarded_singular_values(
    shape: tuple[int, int, int],
) -> None:
    matrices = np.random.default_rng(0).normal(size=shape)
    spectrum = Spectrum(matrices)
    values = np.linalg.svd(matrices, compute_uv=False)
    for rank in range(1, min(shape[1:]) + 1):
        left, right = spectrum.factors(rank)
        assert left.shape == (shape[0], shape[1], rank)
        lost = float(((left @ right - matrices) ** 2).sum())
        assert lost == pytest.approx(float((values[:, rank:] ** 2).sum()), abs=1e-10)
        assert spectrum.losses()[rank - 1] * (values**2).sum() == pytest.approx(lost, abs=1e-10)
        np.testing.assert_allclose(
            np.linalg.norm(left, axis=1), np.linalg.norm(right, axis=2), rtol=1e-6
        )


def test_a_matrix_of_zeros_has_factors() -> None:
    left, right = Spectrum(np.zeros((1, 4, 3))).factors(2)
    assert np.isfinite(left).all() and not (left @ right).any()


CONVOLUTIONS = {
    "valid": (L.Conv2D(6, 3), (9, 8, 4)),
    "same": (L.Conv2D(6, 3, padding="same", activation="relu"), (9, 8, 4)),
    "strides": (L.Conv2D(6, 3, padding="same", strides=2), (9, 8, 4)),
    "strides, valid": (L.Conv2D(6, (4, 3), strides=(2, 2), use_bias=False), (9, 8, 4)),
    "strides, even": (L.Conv2D(6, (4, 2), strides=(3, 3), padding="same"), (9, 8, 4)),
    "dilation": (L.Conv2D(6, 3, padding="same", dilation_rate=2), (9, 8, 4)),
    "dilation, valid": (L.Conv2D(6, (3, 2), dilation_rate=(2, 3)), (9, 8, 4)),
    "groups": (L.Conv2D(6, 3, groups=2, padding="same"), (9, 8, 4)),
    "depthwise": (L.Conv2D(8, (3, 2), groups=4), (9, 8, 4)),
    "pointwise": (L.Conv2D(6, 1, strides=2), (9, 8, 4)),
    "one row": (L.Conv2D(6, (1, 3)), (9, 8, 4)),
    "causal": (L.Conv1D(5, 3, padding="causal", dilation_rate=2), (9, 4)),
    "series": (L.Conv1D(5, 4, strides=2), (9, 4)),
    "volume": (L.Conv3D(5, (3, 2, 3), strides=2, padding="same"), (6, 5, 7, 3)),
}


SPATIAL = ("same", "strides, even", "dilation, valid", "groups", "causal")


@pytest.mark.sampled
@pytest.mark.parametrize(
    ("case", "scheme"),
    [
        *((case, "channel") for case in CONVOLUTIONS),
        *(
            pytest.param(case, "spatial", marks=() if case in SPATIAL else pytest.mark.slow)
            for case in CONVOLUTIONS
        ),
    ],
)
def test_a_convolution_split_at_full_rank_computes_the_same(case: str, scheme: str) -> None:
    layer, shape = CONVOLUTIONS[case]
    layer = type(layer).from_config({**layer.get_config(), "name": "conv"})
    model = keras.Sequential([keras.Input(shape), layer])
    randomise_statistics(model)
    graph = read(model)
    splits = split_conv(graph, graph.operations["conv"], scheme)
    if scheme == "spatial" and case in ("pointwise", "one row", "causal", "series"):
        assert isinstance(splits, str)
        assert "has not two axes" in splits
        return
    assert not isinstance(splits, str)
    (split_once,) = splits.schemes
    assert split_once.scheme == scheme
    chain = split_once.chain("basis", split_once.spectrum.rank)
    split = build(replace_operations(graph, {"conv": chain}))
    assert distance(model, split) < 1e-5
    assert split.get_layer("conv").activation is layer.activation
    # The costs that the choice is made by are those of the model that comes out.
    bias = layer.filters if layer.use_bias else 0
    costs = profile(split, latency=False)
    assert costs.params - bias == split_once.params_per_rank * split_once.spectrum.rank
    assert costs.macs == split_once.macs_per_rank * split_once.spectrum.rank
    before = profile(model, latency=False)
    assert (before.params - bias, before.macs) == (splits.params, splits.macs)


def test_channels_first_splits_over_the_same_axes() -> None:
    last, first = (
        keras.Sequential([keras.Input(shape), L.Conv2D(8, 3, data_format=order, name="conv")])
        for shape, order in (((9, 8, 6), "channels_last"), ((6, 9, 8), "channels_first"))
    )
    first.set_weights(last.get_weights())
    for scheme in ("channel", "spatial"):
        one, other = (Factorize(rank=2, scheme=scheme)(m) for m in (last, first))  # type: ignore[arg-type]
        for a, b in zip(one.get_weights(), other.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)
        costs = [profile(m, latency=False).macs for m in (one, other)]
        assert costs[0] == costs[1] == sum(s.macs[1] for s in _plan(first, scheme).splits)


def _plan(model: keras.Model, scheme: Any) -> Any:
    return Factorize(rank=2, scheme=scheme).plan(model)


@pytest.mark.parametrize(
    ("equation", "shape", "output_shape", "bias_axes"),
    [
        ("ab,bc->ac", (20,), (30,), "c"),
        ("abc,cd->abd", (7, 20), (7, 30), None),
        ("abc,cde->abde", (7, 20), (7, 6, 5), "de"),
        ("abde,dec->abc", (7, 4, 5), (7, 30), "c"),
        ("abc,cde->adbe", (7, 20), (6, 7, 5), "de"),
        ("...x,xy->...y", (3, 3, 20), 30, "y"),
        ("...x,yx->...y", (20,), 30, None),
        ("abx...,xy->aby...", (3, 20, 2), (3, 30), None),
        ("abc,db->adc", (20, 3), (30, 3), "d"),
    ],
)
def test_an_einsum_of_low_rank_is_split_exactly(
    equation: str, shape: tuple[int, ...], output_shape: Any, bias_axes: str | None
) -> None:
    layer = L.EinsumDense(
        equation, output_shape, bias_axes=bias_axes, activation="tanh", name="product"
    )
    model = keras.Sequential([keras.Input(shape), layer])
    randomise_statistics(model)
    _, kernel, made = equation.replace("->", ",").replace(".", "").split(",")
    rows = int(
        np.prod([s for c, s in zip(kernel, layer.kernel.shape, strict=True) if c not in made])
    )
    if kernel in ("yx", "db"):
        rows = layer.kernel.shape[0]
    lower_rank(layer, 3, rows)
    split = Factorize(energy=1.0)(model)
    assert Factorize(energy=1.0).plan(model).splits[0].rank == 3
    assert distance(model, split) < 1e-5
    assert split.output_shape == model.output_shape
    assert split.count_params() < model.count_params()


def test_a_batched_einsum_is_left_alone_with_the_reason() -> None:
    model = keras.Sequential(
        [keras.Input((4, 20)), L.EinsumDense("abc,bcd->abd", (4, 30), name="each")]
    )
    with pytest.raises(EditError, match="each computes 'abc,bcd->abd', which is no plain"):
        Factorize(energy=0.5)(model)


def test_an_embedding_becomes_a_thinner_table_and_a_dense_layer() -> None:
    x = keras.Input((6,), dtype="int32")
    y = L.Embedding(50, 16, mask_zero=True, name="words")(x)
    model = keras.Model(x, L.Dense(3)(L.LSTM(4)(y)))
    lower_rank(model.get_layer("words"), 4, 50)
    split = Factorize(energy=1.0, layers=("words",))(model)
    words = np.random.default_rng(0).integers(0, 50, (5, 6))
    np.testing.assert_allclose(run(split, words)[0], run(model, words)[0], atol=1e-5)
    assert split.get_layer("words_basis").mask_zero
    assert split.get_layer("words").units == 16


def test_energy_takes_the_smallest_rank_that_keeps_it() -> None:
    model = keras.Sequential([keras.Input((30,)), L.Dense(40, name="dense")])
    kernel = model.get_weights()[0]
    shares = np.cumsum(np.linalg.svd(kernel, compute_uv=False) ** 2)
    shares /= shares[-1]
    (split,) = Factorize(energy=0.7).plan(model).splits
    assert shares[split.rank - 2] < 0.7 <= shares[split.rank - 1]
    assert split.energy == pytest.approx(shares[split.rank - 1])
    smaller = Factorize(energy=0.7)(model)
    product = smaller.get_weights()[0] @ smaller.get_weights()[1]
    error = np.linalg.norm(product - kernel) / np.linalg.norm(kernel)
    assert error == pytest.approx(split.error, rel=1e-4)


@pytest.mark.parametrize("keep", [0.2, 0.5, 0.8])
def test_a_share_is_kept_and_nearly_used_up_by_every_layer(keep: float) -> None:
    plan = Factorize(keep, exclude=("classes", "first")).plan(network())
    assert [split.layer for split in plan.splits] == ["second", "wide", "hidden"]
    for split in plan.splits:
        share = max(split.params[1] / split.params[0], split.macs[1] / split.macs[0])
        assert keep - share < 1.001 * share / split.rank
        assert share <= keep


def test_a_rank_is_that_of_every_layer() -> None:
    model = Factorize(rank=4)(network())
    assert model.get_layer("second_basis").filters == 4
    assert model.get_layer("hidden_basis").units == 4
    assert model.get_layer("classes_basis").units == 4


def test_auto_takes_the_scheme_that_loses_less() -> None:
    model = network()
    auto, channel, spatial = (
        {s.layer: s for s in Factorize(0.4, scheme=scheme).plan(model).splits}  # type: ignore[arg-type]
        for scheme in ("auto", "channel", "spatial")
    )
    assert auto["wide"].energy == max(channel["wide"].energy, spatial["wide"].energy)
    assert {auto["wide"].scheme, auto["hidden"].scheme} == {"spatial", "svd"}


@pytest.mark.sampled
@pytest.mark.parametrize("limit", ["macs", "params"])
@pytest.mark.parametrize("share", [0.8, 0.5, 0.2])
def test_a_budget_is_kept_and_nearly_used_up(limit: str, share: float) -> None:
    model = network()
    small = Factorize(Budget(**{limit: share}))(model)
    ratio = getattr(profile(small, latency=False), limit) / getattr(
        profile(model, latency=False), limit
    )
    assert 0.93 * share <= ratio <= share


def test_within_a_budget_no_single_other_rank_would_lose_less() -> None:
    model = network()
    budget = Budget(macs=0.5)
    chosen = sum(1 - s.energy for s in Factorize(budget).plan(model).splits)
    limit = 0.5 * profile(model, latency=False).macs
    for keep in (0.3, 0.4, 0.45):
        even = Factorize(float(keep))
        if profile(even(model), latency=False).macs <= limit:
            assert chosen <= sum(1 - s.energy for s in even.plan(model).splits)


def test_within_a_budget_layers_of_low_rank_give_way_first() -> None:
    model = network()
    lower_rank(model.get_layer("hidden"), 2, model.get_layer("hidden").kernel.shape[0])
    plan = Factorize(Budget(params=0.6)).plan(model)
    assert [split.layer for split in plan.splits] == ["hidden"]
    assert plan.left_alone["wide"] == "stays whole, as the budget allows"


def test_two_limits_hold_together() -> None:
    model = network()
    small = Factorize(Budget(macs=0.6, params=0.3))(model)
    assert Budget(macs=0.6, params=0.3).fits(
        profile(small, latency=False), profile(model, latency=False)
    )


@pytest.mark.slow
def test_a_latency_budget_is_measured() -> None:
    model = keras.Sequential([keras.Input((1600,)), L.Dense(1600, name="a"), L.Dense(1600)])
    assert Factorize(Budget(latency=0.9)).plan(model).splits
    with pytest.raises(BudgetError, match="latency can be brought down to .* ms"):
        Factorize(Budget(latency=1e-9))(network())


def test_an_impossible_budget_is_refused_with_the_lowest_cost() -> None:
    model = network()
    with pytest.raises(BudgetError, match=r"macs can be brought down to ([\d,]+)") as caught:
        Factorize(Budget(macs=100))(model)
    least = int(str(caught.value).split("down to ")[1].split(" ")[0].replace(",", ""))
    assert profile(Factorize(Budget(macs=least))(model), latency=False).macs == least


@pytest.mark.parametrize("limit", ["macs", "params"])
def test_a_budget_counts_products_and_tables_as_the_profile_does(limit: str) -> None:
    x = keras.Input((6,), dtype="int32")
    y = L.Embedding(300, 32, name="words")(x)
    y = L.EinsumDense("abc,cde->abde", (6, 4, 16), activation="tanh", name="apart")(y)
    y = L.EinsumDense("abde,dec->abc", (6, 48), bias_axes="c", name="together")(y)
    model = keras.Model(x, L.Dense(8, name="head")(y))
    edit = Factorize(Budget(**{limit: 0.6}))
    whole, small = (profile(m, latency=False) for m in (model, edit(model)))
    saved = sum(getattr(s, limit)[0] - getattr(s, limit)[1] for s in edit.plan(model).splits)
    assert getattr(whole, limit) - getattr(small, limit) == saved
    assert 0.5 <= getattr(small, limit) / getattr(whole, limit) <= 0.6
    assert ("words" in {s.layer for s in edit.plan(model).splits}) == (limit == "params")


def test_a_budget_that_is_kept_already_changes_nothing() -> None:
    with pytest.raises(EditError, match="would change nothing: the model keeps"):
        Factorize(Budget(macs=1.0))(network())


def test_a_shared_layer_is_split_once_for_all_its_calls() -> None:
    x = keras.Input((8, 8, 12))
    shared = L.Conv2D(12, 3, padding="same", name="shared")
    half = L.AveragePooling2D(2)(x)
    y = L.Concatenate()([L.Flatten()(shared(shared(x))), L.Flatten()(shared(half))])
    model = keras.Model(x, [y, L.Dense(1, name="head")(y)])
    lower_rank(shared, 2, 3 * 3 * 12)
    split = Factorize(energy=1.0, layers=("shared",))(model)
    assert distance(model, split) < 1e-5
    assert sum(isinstance(layer, L.Conv2D) for layer in split.layers) == 2
    (plan,) = Factorize(energy=1.0, layers=("shared",)).plan(model).splits
    whole, smaller = (profile(m, latency=False).macs for m in (model, split))
    assert whole - smaller == plan.macs[0] - plan.macs[1]


def test_layers_that_share_a_kernel_are_left_alone() -> None:
    x = keras.Input((20,))
    one, two = L.Dense(20, use_bias=False, name="one"), L.Dense(20, use_bias=False, name="two")
    model = keras.Model(x, L.Add()([one(x), two(x)]))
    graph = read(model)
    tied = replace(graph.operations["two"], weights=graph.operations["one"].weights)
    with pytest.raises(EditError, match="one shares its kernel with 'two'"):
        Factorize(energy=0.5).apply(graph.with_operations({"two": tied}))


@pytest.mark.parametrize("policy", ["float16", "bfloat16", "mixed_bfloat16"])
def test_the_dtype_policy_stays(policy: str) -> None:
    model = keras.Sequential([keras.Input((40,)), L.Dense(40, dtype=policy, name="dense")])
    split = Factorize(energy=0.5)(model)
    for name in ("dense_basis", "dense"):
        layer = split.get_layer(name)
        assert layer.dtype_policy.name == policy
        assert layer.kernel.dtype == model.get_layer("dense").kernel.dtype


def test_frozen_layers_stay_frozen_and_regularisers_stay() -> None:
    layer = L.Conv2D(16, 3, kernel_regularizer="l2", bias_regularizer="l1", name="conv")
    model = keras.Sequential([keras.Input((8, 8, 16)), layer])
    layer.trainable = False
    split = Factorize(energy=0.5)(model)
    assert not split.trainable_weights
    assert split.get_layer("conv_basis").kernel_regularizer is not None
    assert split.get_layer("conv").bias_regularizer is not None
    assert split.get_layer("conv_basis").bias_regularizer is None


def test_a_split_model_can_be_pruned_exactly() -> None:
    assert assert_cuts_exactly(Factorize(0.5)(network())).cut > 20


def test_data_brings_the_split_model_closer() -> None:
    model = network()
    generator = np.random.default_rng(0)
    x = generator.normal(size=(256, 16, 16, 3)).astype("float32")
    data = (x, np.zeros(256))
    blind, fitted = Factorize(0.15)(model), Factorize(0.15)(model, data)
    test = generator.normal(size=(64, 16, 16, 3)).astype("float32")
    errors = [np.linalg.norm(run(m, test)[0] - run(model, test)[0]) for m in (blind, fitted)]
    assert errors[1] < 0.9 * errors[0]
    same = Factorize(0.15, compensate=False)(model, data)
    assert distance(blind, same) == 0


def test_where_nothing_pays_every_layer_has_its_reason() -> None:
    model = keras.Sequential(
        [keras.Input((4, 4, 1)), L.Conv2D(1, 2, name="tiny"), L.Flatten(), L.Dense(1, name="out")]
    )
    with pytest.raises(EditError, match="tiny is smaller as it is: rank 1 needs .*; out is"):
        Factorize(0.5)(model)
    with pytest.raises(EditError, match="hidden is smaller as it is than at a rank that keeps 1"):
        Factorize(energy=1.0, layers=("hidden",))(network())


def test_a_kernel_that_is_not_finite_or_constrained_is_left_alone() -> None:
    model = keras.Sequential(
        [
            keras.Input((20,)),
            L.Dense(20, name="broken"),
            L.Dense(20, kernel_constraint="non_neg", name="bounded"),
        ]
    )
    model.get_layer("broken").kernel.assign(np.full((20, 20), np.nan))
    with pytest.raises(EditError, match="'kernel' of layer 'broken' .* holds NaN or infinite"):
        Factorize(energy=0.5)(model)
    model.get_layer("broken").kernel.assign(np.eye(20))
    with pytest.raises(EditError, match="bounded has a k"):
        Factorize(energy=0.5, layers=("bounded",))(model)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "one of keep, rank and energy"),
        ({"keep": 0.5, "energy": 0.5}, "one of keep, rank and energy"),
        ({"keep": 1}, "give a share such as 0.5 or a Budget; for a rank give rank="),
        ({"rank": 0}, "rank"),
        ({"rank": 0.5}, "rank"),
        ({"keep": 0.0}, "above 0"),
        ({"keep": 1.5}, "above 0 and at most 1"),
        ({"keep": True}, "give a number, a Budget or None"),
        ({"keep": "half"}, "give a number, a Budget or None"),
        ({"energy": 0.0}, "above 0"),
        ({"energy": 1.01}, "at most 1"),
        ({"energy": True}, "give a number"),
        ({"keep": 0.5, "scheme": "tucker"}, "'channel' or 'spatial'"),
    ],
)
def test_bad_arguments_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(EditError, match=message):
        Factorize(**arguments)


def test_layers_that_are_unknown_or_of_another_kind_are_refused() -> None:
    with pytest.raises(EditError, match="did you mean 'hidden'"):
        Factorize(0.5, layers=("hiden",))(network())
    with pytest.raises(EditError, match="did you mean 'second'"):
        Factorize(0.5, exclude=("secnd",))(network())
    with pytest.raises(EditError, match="cannot split layer 'flatten' of kind Flatten"):
        Factorize(0.5, layers=("flatten",))(network())


def test_the_plan_prints_as_a_table() -> None:
    table = str(Factorize(0.5, scheme="spatial").plan(network()))
    assert "energy kept" in table
    assert "first" in table and "wide" in table and "→" in table
