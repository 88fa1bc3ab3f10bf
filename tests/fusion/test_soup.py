"""Soups: the mean of one lineage is taken, that of strangers refused or aligned."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers as L

from saikei.errors import DataError, FusionError
from saikei.fusion import Average
from saikei.fusion.soup import Soup
from saikei.graph import copy_model
from saikei.judging import choose, nested_score
from saikei.merging.methods import Dare, Ema, Fisher, Greedy, Linear, Slerp, TaskArithmetic, Ties
from saikei.training import declare_training_rows, fit
from saikei.training.provenance import training_rows

ROWS = 400


def problem(seed: int, rows: int = ROWS) -> tuple[np.ndarray, np.ndarray]:
    """Two rings, which no linear function separates."""
    generator = np.random.default_rng(seed)
    x = generator.standard_normal((rows, 2)).astype(np.float32)
    return x, (np.square(x).sum(axis=1) > 1.4).astype(np.int64)


def network(seed: int, batch_norm: bool = False, width: int = 24) -> keras.Model:
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((2,))
    y = L.Dense(width, "relu")(inputs)
    if batch_norm:
        y = L.BatchNormalization()(y)
    y = L.Dense(width - width // 3, "relu")(y)
    return keras.Model(inputs, L.Dense(2, "softmax")(y), name=f"net_{seed}")


def trained(model: keras.Model, seed: int, epochs: int = 10, rate: float = 1e-2) -> keras.Model:
    keras.utils.set_random_seed(seed)
    model.compile(keras.optimizers.Adam(rate), "sparse_categorical_crossentropy")
    model.fit(*problem(seed), epochs=epochs, batch_size=32, verbose=0)
    return model


def branches(base: keras.Model, count: int = 3, **how: Any) -> list[keras.Model]:
    """Fine-tuned from one network on rows of their own."""
    return [
        trained(copy_model(base, f"branch_{n}"), 100 + n, epochs=3, rate=2e-3, **how)
        for n in range(count)
    ]


@pytest.fixture(scope="module")
def base() -> keras.Model:
    return trained(network(0), 0)


@pytest.fixture(scope="module")
def family(base: keras.Model) -> list[keras.Model]:
    return branches(base)


@pytest.fixture(scope="module")
def strangers() -> list[keras.Model]:
    return [trained(network(seed), seed) for seed in (1, 2)]


HELD = problem(999)


def weights(model: keras.Model) -> list[np.ndarray]:
    return [keras.ops.convert_to_numpy(w) for w in model.weights]


def test_a_uniform_soup_is_the_mean_of_the_weights_and_reports_what_it_measured(
    family: list[keras.Model],
) -> None:
    before = [weights(member) for member in family]
    made = Soup().fuse(family, HELD)
    for mean, *each in zip(weights(made.model), *before, strict=True):
        np.testing.assert_array_equal(mean, np.mean(np.float64(each), axis=0).astype(np.float32))
    assert made.weights == (1 / 3,) * 3
    assert len(made.barriers) == 2 and made.barrier is not None and made.barrier < 0.05
    assert made.loss == pytest.approx(
        -np.log(made.model.predict_on_batch(HELD[0])[np.arange(ROWS), HELD[1]]).mean(), rel=1e-5
    )
    assert made.loss < max(made.losses)
    for member, old in zip(family, before, strict=True):
        for a, b in zip(weights(member), old, strict=True):
            np.testing.assert_array_equal(a, b)


def test_the_mean_of_strangers_is_refused_by_name(strangers: list[keras.Model]) -> None:
    with pytest.raises(FusionError, match=r"member 2 \('net_2'\) cannot be averaged: between"):
        Soup(align=False)(strangers, HELD)


def test_strangers_are_aligned_first(strangers: list[keras.Model]) -> None:
    unaligned = Soup(align=False, check=False).fuse(strangers, HELD)
    made = Soup().fuse(strangers, HELD)
    assert made.barriers[0].significant and not made.aligned[0].significant
    assert made.moved[0] == 0 and made.moved[1] > 20
    assert made.loss is not None and unaligned.loss is not None
    assert made.loss < unaligned.loss - 0.05


@pytest.mark.slow
def test_what_stands_after_alignment_is_refused_too() -> None:
    narrow = [trained(network(seed, width=4), seed, epochs=20) for seed in (1, 2)]
    with pytest.raises(FusionError, match="before their channels were aligned"):
        Soup()(narrow, HELD)


def test_a_member_whose_channels_were_shuffled_is_aligned_and_merged(
    family: list[keras.Model],
) -> None:
    from saikei.channels import map_channels
    from saikei.fusion.soup.architecture import tensors, with_tensors
    from saikei.fusion.soup.permutation import Symmetries
    from saikei.graph import build, read

    graph = read(family[1])
    symmetries = Symmetries.of(map_channels(graph))
    source = symmetries.random(np.random.default_rng(0))
    shuffled = build(with_tensors(graph, symmetries.apply(tensors(graph, graph), source)))
    plain = Soup().fuse(family[:2], HELD)
    with pytest.raises(FusionError, match="a loss barrier"):
        Soup(align=False)([family[0], shuffled], HELD)
    made = Soup().fuse([family[0], shuffled], HELD)
    assert made.barriers[0].significant and not made.aligned[0].significant
    for a, b in zip(weights(made.model), weights(plain.model), strict=True):
        np.testing.assert_array_equal(a, b)


def test_without_data_nothing_can_be_checked_and_nothing_is_merged(
    family: list[keras.Model],
) -> None:
    with pytest.raises(FusionError, match="check=False"):
        Soup()(family)
    made = Soup(check=False).fuse(family)
    assert made.barriers == () and made.barrier is None and made.loss is None


METHODS = ["uniform", "ema", "slerp", "ties", "dare", "model_stock", "task_arithmetic", "fisher"]


@pytest.mark.sampled
@pytest.mark.parametrize("method", [*METHODS, "greedy"])
def test_a_soup_of_copies_is_that_model(method: str, base: keras.Model) -> None:
    copies = [copy_model(base) for _ in range(2 if method == "slerp" else 3)]
    needs = method in ("ties", "dare", "model_stock", "task_arithmetic")
    made = Soup(method, base=base if needs else None).fuse(copies, HELD)
    for a, b in zip(weights(made.model), weights(base), strict=True):
        np.testing.assert_array_equal(a, b)
    assert made.barrier == pytest.approx(0, abs=1e-6)


@pytest.mark.sampled
@pytest.mark.parametrize("method", METHODS)
def test_every_method_keeps_what_its_members_know(
    method: str, base: keras.Model, family: list[keras.Model]
) -> None:
    members = family[:2] if method == "slerp" else family
    needs = method in ("ties", "dare", "model_stock", "task_arithmetic")
    made = Soup(method, base=base if needs else None).fuse(members, HELD)
    assert made.loss is not None and made.loss < max(made.losses) + 0.02
    assert made.model.name == "soup" and made.model.compiled
    values = weights(made.model)
    assert not all(np.array_equal(a, b) for a, b in zip(values, weights(members[0]), strict=True))


def test_a_greedy_soup_is_never_worse_than_its_best_member(
    family: list[keras.Model], strangers: list[keras.Model]
) -> None:
    for members in (family, [*family, *strangers]):
        made = Soup("greedy").fuse(members, HELD)
        assert made.loss is not None and made.loss <= min(made.losses) + 1e-9
        assert list(made.path) == sorted(made.path, reverse=True)
        assert sum(made.weights) == pytest.approx(1)
    alone = Soup(Greedy("accuracy")).fuse(family, HELD)
    assert list(alone.path) == sorted(alone.path)


@pytest.mark.long
def test_moving_statistics_are_those_of_the_merged_weights() -> None:
    members = branches(trained(network(3, batch_norm=True), 3), 2)
    made = Soup().fuse(members, HELD)
    dense, norm = (
        next(layer for layer in made.model.layers if isinstance(layer, kind))
        for kind in (L.Dense, L.BatchNormalization)
    )
    reads = np.maximum(HELD[0] @ weights(dense)[0] + weights(dense)[1], 0)
    np.testing.assert_allclose(norm.moving_mean, reads.mean(axis=0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(norm.moving_variance, reads.var(axis=0), rtol=1e-3, atol=1e-5)
    with pytest.raises(FusionError, match="recalibrate=False"):
        Soup(check=False)(members)
    averaged = Soup(check=False, recalibrate=False)(members)
    own = next(x for x in averaged.layers if isinstance(x, L.BatchNormalization))
    theirs = [
        next(x for x in m.layers if isinstance(x, L.BatchNormalization)).moving_mean
        for m in members
    ]
    np.testing.assert_allclose(own.moving_mean, np.mean(theirs, axis=0), rtol=1e-5)


def test_members_of_other_architectures_are_refused_with_what_differs(base: keras.Model) -> None:
    inputs = keras.Input((2,))
    other = keras.Model(inputs, L.Dense(2, "softmax")(L.Dense(24, "relu")(inputs)), name="short")
    wide = keras.Model(
        inputs,
        L.Dense(2, "softmax")(L.Dense(17, "relu")(L.Dense(24, "relu")(inputs))),
    )
    curved = keras.Model(
        inputs,
        L.Dense(2, "softmax")(L.Dense(16, "tanh")(L.Dense(24, "relu")(inputs))),
    )
    with pytest.raises(FusionError, match=r"member 2 \('short'\) are not of one architecture"):
        Soup(check=False)([base, other])
    with pytest.raises(FusionError, match=r"differ in units \(16 and 17\)"):
        Soup(check=False)([base, wide])
    with pytest.raises(FusionError, match=r"differ in activation \('relu' and 'tanh'\)"):
        Soup(check=False)([base, curved])
    with pytest.raises(FusionError, match="at least two members"):
        Soup(check=False)([base])
    with pytest.raises(FusionError, match="use Average"):
        Soup(check=False)([base, other])


def test_layers_that_are_wired_otherwise_are_refused() -> None:
    def made(swapped: bool) -> keras.Model:
        inputs = keras.Input((3,))
        a = L.Dense(3)(inputs)
        b = L.Dense(3)(a)
        return keras.Model(inputs, L.Subtract()([b, a] if swapped else [a, b]))

    Soup(check=False)([made(False), made(False)])
    with pytest.raises(FusionError, match="reads or gives other tensors"):
        Soup(check=False)([made(False), made(True)])


def test_members_that_prepare_their_inputs_otherwise_are_refused() -> None:
    def made(mean: float) -> keras.Model:
        inputs = keras.Input((3,))
        layer = L.Normalization()
        layer.adapt(np.full((4, 3), mean) + np.arange(12.0).reshape(4, 3))
        return keras.Model(inputs, L.Dense(2)(layer(inputs)))

    with pytest.raises(FusionError, match="prepares its inputs otherwise than member 1"):
        Soup(check=False)([made(0.0), made(5.0)])
    Soup(check=False)([made(1.0), made(1.0)])


def test_rows_that_a_member_was_trained_on_are_refused(base: keras.Model) -> None:
    members = [copy_model(base, "first"), copy_model(base, "second")]
    fresh = Soup("greedy")(members, HELD)
    assert [rows.by for rows in training_rows(fresh)] == ["Soup"]
    assert not training_rows(Soup()(members, HELD))
    declare_training_rows(members[1], HELD)
    with pytest.raises(FusionError, match=r"Member 2 \('second'\) was trained on 400"):
        Soup()(members, HELD)
    made = Soup()(members, HELD, allow_in_sample=True)
    assert training_rows(made)


def test_models_with_two_inputs_and_two_outputs_are_merged() -> None:
    def made(seed: int) -> keras.Model:
        keras.utils.set_random_seed(seed)
        a, b = keras.Input((2,), name="a"), keras.Input((3,), name="b")
        y = L.Dense(8, "relu")(L.Concatenate()([a, b]))
        return keras.Model(
            {"a": a, "b": b}, {"class": L.Dense(3, "softmax")(y), "number": L.Dense(1)(y)}
        )

    generator = np.random.default_rng(0)
    x = {"a": generator.standard_normal((30, 2)), "b": generator.standard_normal((30, 3))}
    y = {"class": generator.integers(0, 3, 30), "number": generator.standard_normal((30, 1))}
    member = made(0)
    made_ = Soup("fisher").fuse([member, copy_model(member)], (x, y))
    assert made_.barriers[0].gain != 0
    for a, b in zip(weights(made_.model), weights(member), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_members_of_other_precision_keep_it(dtype: str) -> None:
    def made(seed: int) -> keras.Model:
        keras.utils.set_random_seed(seed)
        inputs = keras.Input((3,))
        return keras.Model(inputs, L.Dense(2, dtype=dtype)(inputs))

    members = [made(0), made(1)]
    soup = Soup(check=False)(members)
    assert soup.weights[0].dtype == dtype
    both = np.float64([weights(m)[0].astype(np.float64) for m in members])
    np.testing.assert_array_equal(
        weights(soup)[0], both.mean(axis=0).astype(weights(members[0])[0].dtype)
    )


def test_a_soup_has_a_json_form_that_makes_it_again(tmp_path: Path, base: keras.Model) -> None:
    path = str(tmp_path / "base.keras")
    base.save(path)
    soups = [
        Soup(),
        Soup(Linear((0.25, 0.75))),
        Soup(Ties(0.3, 0.5), base=path, align=False),
        Soup(Dare(0.5, "sign", seed=3), base=path),
        Soup(Greedy("accuracy"), points=5),
        Soup(Fisher(64), recalibrate=False),
        Soup(Slerp(0.3)),
        Soup(Ema(0.99), check=False),
    ]
    for soup in soups:
        assert Soup.from_dict(soup.to_dict()) == soup
    with pytest.raises(FusionError, match="as JSON: give the path of its .keras file"):
        Soup("ties", base=base).to_dict()


def test_a_base_may_be_the_path_of_a_file(
    tmp_path: Path, base: keras.Model, family: list[keras.Model]
) -> None:
    base.save(tmp_path / "base.keras")
    by_path = Soup("ties", base=str(tmp_path / "base.keras"))(family, HELD)
    by_model = Soup("ties", base=base)(family, HELD)
    for a, b in zip(weights(by_path), weights(by_model), strict=True):
        np.testing.assert_array_equal(a, b)


def test_arguments_that_do_not_fit_are_refused(
    base: keras.Model, family: list[keras.Model]
) -> None:
    for wrong, message in [
        (lambda: Soup("mean"), "method='mean' is unknown: use one of uniform, greedy"),
        (lambda: Soup("ties"), "Ties merges differences.*give base="),
        (lambda: Soup("uniform", base=base), "Linear needs no base"),
        (lambda: Soup("ties", base=3), "base=3 is no model"),
        (lambda: Soup(align="yes"), "align='yes' is unknown"),  # type: ignore[arg-type]
        (lambda: Soup(points=2), "points=2"),
        (lambda: Ties(0.0), "density=0.0 must be above 0 and at most 1"),
        (lambda: Dare(1.0), "drop=1.0 must be at least 0 and below 1"),
        (lambda: Dare(consensus="vote"), "consensus='vote'"),  # type: ignore[arg-type]
        (lambda: Linear((0.5, 0.6)), "sum to 1.1"),
        (lambda: Ema(2.0), "decay=2.0"),
        (lambda: Fisher(0), "samples=0"),
        (lambda: Greedy("f1"), "metric='f1'"),  # type: ignore[arg-type]
        (lambda: Soup(Linear((0.5, 0.5)))(family, HELD), "2 weights are given for 3 members"),
        (lambda: Soup("slerp")(family, HELD), "between two models, got 3"),
        (lambda: Soup("greedy", check=False)(family), "fitted to held-out data"),
    ]:
        with pytest.raises(FusionError, match=message):
            wrong()
    with pytest.raises(DataError):
        Soup()(family, (np.zeros((0, 2)), np.zeros(0)))
    assert TaskArithmetic().needs_base


def test_a_member_with_nan_is_refused_by_name(base: keras.Model, family: list[keras.Model]) -> None:
    broken = copy_model(family[0])
    broken.layers[1].kernel.assign(np.full((2, 24), np.nan))
    for soup in (Soup(), Soup(check=False)):
        with pytest.raises(FusionError, match="Member 2: 'kernel' of layer 'dense"):
            soup([family[1], broken], HELD)


@pytest.mark.slow
def test_a_soup_takes_part_in_the_choice_of_fusions(family: list[keras.Model]) -> None:
    nested = nested_score(Soup(), family, HELD, folds=2)
    assert nested.score.n == ROWS
    choice = choose([Soup(), Average()], family[:2], HELD, folds=2)
    assert {type(rival.fusion).__name__ for rival in choice.rivals} >= {"Soup", "Average"}


def test_the_fit_of_provenance_is_kept(base: keras.Model) -> None:
    x, y = problem(5, 64)
    members = [copy_model(base), copy_model(base)]
    fit(members[0], (x, y), epochs=1, learning_rate=1e-3, progress=False)
    assert any(rows.by == "fit" for rows in training_rows(Soup()(members, HELD)))
