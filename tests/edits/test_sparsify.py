"""Kernels get exactly the zeros that are asked for, where they cost least."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

from saikei import Sparsify, profile
from saikei.errors import EditError
from saikei.graph import read

pytestmark = pytest.mark.backends

L = keras.layers


def network() -> keras.Model:
    keras.utils.set_random_seed(0)
    x = keras.Input((12, 12, 3))
    y = L.Conv2D(16, 3, activation="relu", name="first")(x)
    y = L.BatchNormalization(name="norm")(y)
    y = L.DepthwiseConv2D(3, name="deep")(y)
    y = L.SeparableConv2D(10, 3, name="separable")(y)
    y = L.Conv2DTranspose(8, 3, name="up")(y)
    y = L.Flatten(name="flat")(y)
    return keras.Model(x, L.Dense(5, name="head")(y))


def kernels(model: keras.Model) -> dict[str, np.ndarray]:
    return {
        w.path: keras.ops.convert_to_numpy(w) for w in model.weights if w.path.endswith("kernel")
    }


def share_of_zeros(arrays: Any) -> float:
    arrays = list(arrays)
    return sum(int((a == 0).sum()) for a in arrays) / sum(a.size for a in arrays)


@pytest.mark.parametrize("sparsity", [0.1, 0.5, 0.9])
def test_every_kernel_has_the_asked_share_of_zeros_and_nothing_else_changes(
    sparsity: float,
) -> None:
    model = network()
    sparse = Sparsify(sparsity)(model)
    for path, kernel in kernels(sparse).items():
        assert int((kernel == 0).sum()) == round(sparsity * kernel.size), path
    for before, after in zip(model.weights, sparse.weights, strict=True):
        one, other = (keras.ops.convert_to_numpy(w) for w in (before, after))
        assert after.path.endswith("kernel") or (one == other).all()
        np.testing.assert_array_equal(other[other != 0], one[other != 0])
        if (other == 0).any() and (other != 0).any() and after.path.endswith("kernel"):
            assert np.abs(one[other == 0]).max() <= np.abs(other[other != 0]).min()
    assert share_of_zeros(kernels(model).values()) == 0


def test_global_scope_reaches_the_share_over_all_kernels_and_empties_none() -> None:
    model = network()
    for sparsity in (0.5, 0.9, 0.99):
        sparse = kernels(Sparsify(sparsity, scope="global")(model))
        total = sum(kernel.size for kernel in sparse.values())
        assert share_of_zeros(sparse.values()) == round(sparsity * total) / total
        assert all(kernel.any() for kernel in sparse.values())
    shares = {path: share_of_zeros([kernel]) for path, kernel in sparse.items()}
    assert max(shares.values()) - min(shares.values()) > 0.02


def test_global_scope_does_not_depend_on_the_scale_of_a_layer() -> None:
    model = network()
    before = [w == 0 for w in kernels(Sparsify(0.7, scope="global")(model)).values()]
    layer = model.get_layer("first")
    layer.kernel.assign(64 * layer.kernel)
    after = [w == 0 for w in kernels(Sparsify(0.7, scope="global")(model)).values()]
    for one, other in zip(before, after, strict=True):
        np.testing.assert_array_equal(one, other)


def groups_along(kernel: np.ndarray, axis: int, of: int) -> np.ndarray:
    rows = np.moveaxis(kernel, axis, 0)
    return rows[: len(rows) // of * of].reshape(-1, of, *rows.shape[1:])


@pytest.mark.parametrize(("pattern", "kept", "of"), [("2:4", 2, 4), ("1:3", 1, 3), ("4:8", 4, 8)])
def test_a_pattern_holds_in_every_group_along_the_inputs(pattern: str, kept: int, of: int) -> None:
    model = network()
    edit = Sparsify(pattern=pattern)
    sparse, dense = kernels(edit(model)), kernels(model)
    axes = {"separable/pointwise_kernel": -2, "up/kernel": -1, "head/kernel": 0}
    for path, axis in axes.items():
        groups, whole = (groups_along(k[path], axis, of) for k in (sparse, dense))
        assert ((groups != 0).sum(axis=1) == kept).all(), path
        # Those that stay are the largest of each group.
        largest = np.sort(np.abs(whole), axis=1)[:, -kept:].sum()
        assert np.abs(groups).sum() == pytest.approx(largest, rel=1e-5)
    notes = {k.layer: k.note for k in edit.plan(model).kernels}
    assert "no axis of its kernel" in notes["deep"]
    assert (sparse["deep/kernel"] == dense["deep/kernel"]).all()
    if of > 3:
        assert notes["first"] == f"dense: its 3 inputs are no group of {of}"
    rest = 10 % of
    assert ("the last" in notes["up"]) == bool(rest)
    assert (sparse["up/kernel"][..., 10 - rest :] == dense["up/kernel"][..., 10 - rest :]).all()


def test_patterns_follow_the_inputs_of_products_over_several_axes() -> None:
    x = keras.Input((6, 16))
    y = L.EinsumDense("abc,dec->abde", (6, 2, 4), name="einsum")(x)
    y = L.EinsumDense("abde,edf->abf", (6, 12), name="back")(y)
    y = L.MultiHeadAttention(2, 4, name="attention")(y, y)
    y = L.LSTM(8, name="memory")(y)
    model = keras.Model(x, L.Dense(2, name="head")(y))
    sparse = Sparsify(pattern="2:4")(model)
    found = {w.path: keras.ops.convert_to_numpy(w) for w in sparse.weights}
    checks = {
        "einsum/kernel": lambda k: k.transpose(2, 0, 1).reshape(16, -1),
        "back/kernel": lambda k: k.reshape(8, -1),
        "attention/query/kernel": lambda k: k.reshape(12, -1),
        "attention/attention_output/kernel": lambda k: k.reshape(8, -1),
        "memory/lstm_cell/kernel": lambda k: k,
        "memory/lstm_cell/recurrent_kernel": lambda k: k,
    }
    for path, rows in checks.items():
        matrix = rows(found[path])
        assert ((groups_along(matrix, 0, 4) != 0).sum(axis=1) == 2).all(), path


def test_layers_and_exclude_choose() -> None:
    sparse = kernels(Sparsify(0.5, layers=("first", "head"), exclude=("head",))(network()))
    assert share_of_zeros([sparse["first/kernel"]]) == 0.5
    assert share_of_zeros(v for k, v in sparse.items() if k != "first/kernel") == 0


def test_one_weight_of_every_kernel_stays() -> None:
    model = keras.Sequential([keras.Input((3,)), L.Dense(1, name="a")])
    assert (Sparsify(0.99)(model).get_layer("a").get_weights()[0] != 0).sum() == 1


def test_equal_weights_fall_in_the_order_of_their_indices() -> None:
    model = keras.Sequential([keras.Input((3,)), L.Dense(4, kernel_initializer="ones", name="a")])
    kernel = Sparsify(0.5)(model).get_layer("a").get_weights()[0]
    np.testing.assert_array_equal(kernel.ravel(), [0] * 6 + [1] * 6)


@pytest.mark.parametrize("policy", ["float16", "bfloat16"])
def test_the_dtype_stays(policy: str) -> None:
    model = keras.Sequential([keras.Input((40,)), L.Dense(40, dtype=policy, name="dense")])
    sparse = Sparsify(0.75, scope="global")(model).get_layer("dense")
    assert sparse.kernel.dtype == policy
    assert (keras.ops.convert_to_numpy(sparse.kernel) == 0).mean() == 0.75


def test_the_profile_counts_zeros_and_notes_that_they_do_not_help_a_dense_runtime() -> None:
    model = network()
    sparse = Sparsify(0.8, exclude=("deep",))(model)
    costs = profile(sparse, latency=False)
    assert costs.zeros == sum(int((k == 0).sum()) for k in kernels(sparse).values()) > 0
    assert {layer.name for layer in costs.layers if layer.zeros} == {
        "first",
        "separable",
        "up",
        "head",
    }
    assert f"({costs.zeros:,} of them zero" in str(costs)
    assert "no faster" in costs.summary()
    assert costs.to_dict()["layers"][1]["zeros"] == round(0.8 * 3 * 3 * 3 * 16)
    dense = profile(model, latency=False)
    assert (dense.params, dense.macs) == (costs.params, costs.macs)
    assert dense.zeros == 0 and "zero" not in str(dense)


def test_silenced_channels_are_no_sparsity() -> None:
    model = network()
    kernel, bias = model.get_layer("first").get_weights()
    kernel[..., 3] = 0
    kernel[1, 2] = 0
    model.get_layer("first").set_weights([kernel, bias])
    assert profile(model, latency=False).zeros == 0


def test_zeros_of_weights_that_layers_share_are_the_same() -> None:
    model = keras.Sequential([keras.Input((8,)), L.Dense(8, name="a"), L.Dense(8, name="b")])
    graph = read(model)
    a = graph.operations["a"]
    b = type(a)("b", a.kind, a.config, dict(a.weights), graph.operations["b"].source)
    edited = Sparsify(0.5).apply(graph.with_operations({"b": b}))
    arrays = [edited.operations[name].weights["kernel"].numpy() for name in ("a", "b")]
    np.testing.assert_array_equal(*arrays)
    assert share_of_zeros(arrays) == 0.5
    assert share_of_zeros(kernels(model).values()) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sparsity": 1.0}, "below 1"),
        ({"sparsity": -0.1}, "at least 0"),
        ({"sparsity": True}, "give a number"),
        ({"sparsity": "half"}, "give a number"),
        ({"pattern": "4:2"}, "n of every m"),
        ({"pattern": "0:4"}, "n of every m"),
        ({"pattern": "blocks"}, "n of every m"),
        ({"pattern": 4}, "give a text"),
        ({"sparsity": 0.5, "pattern": "1:4"}, "share of 0.75 zero; leave sparsity out"),
        ({"scope": "model"}, "'layer' or 'global'"),
    ],
)
def test_bad_arguments_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(EditError, match=message):
        Sparsify(**arguments)


def test_what_would_change_nothing_gives_a_message() -> None:
    model = network()
    with pytest.raises(EditError, match="change nothing: the kernels have these zeros already"):
        Sparsify(0.0)(model)
    sparse = Sparsify(0.5)(model)
    with pytest.raises(EditError, match="have these zeros already"):
        Sparsify(0.5)(sparse)
    with pytest.raises(EditError, match="first is dense: its 3 inputs are no group of 16"):
        Sparsify(pattern="2:16", layers=("first",))(model)
    flat = keras.Sequential([keras.Input((3,)), L.ReLU()])
    with pytest.raises(EditError, match="no layer that is chosen has a kernel"):
        Sparsify()(flat)


def test_layers_without_kernels_and_unknown_ones_are_refused() -> None:
    with pytest.raises(EditError, match=r"'norm' \(BatchNormalization\) has no kernel .*gamma"):
        Sparsify(layers=("norm",))(network())
    with pytest.raises(EditError, match="did you mean 'head'"):
        Sparsify(exclude=("haed",))(network())


def test_the_plan_prints_as_a_table() -> None:
    table = str(Sparsify(pattern="2:4").plan(network()))
    assert "pointwise_kernel" in table and "50.0%" in table
    assert "deep" in table and "of all these weights are zero" in table


@pytest.mark.parametrize(
    "attention", [lambda: L.MultiHeadAttention(4, 4), lambda: L.GroupQueryAttention(4, 4, 2)]
)
def test_a_pattern_holds_along_the_inputs_of_attention(attention: Any) -> None:
    x = keras.Input((5, 8))
    sparse = Sparsify(pattern="2:4")(keras.Model(x, attention()(x, x)))
    for path, kernel in kernels(sparse).items():
        rows = 2 if "output" in path else 1
        fours = kernel.reshape(-1, 4, int(np.prod(kernel.shape[rows:])))
        assert ((fours == 0).sum(axis=1) == 2).all(), path
