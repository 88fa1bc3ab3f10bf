"""Dense layers given by equations, and products of tensors."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from keras import layers as L
from keras import ops

from saikei.costs import profile
from saikei.edits import PruneChannels
from saikei.rules.contraction import parse
from tests.rules.nets import checked

EQUATIONS: dict[str, tuple[Any, Any, dict[str, int]]] = {
    "abc,cd->abd": ((5, 6), "d", {"a": 8, "e": 6}),
    "...c,cd->...d": (6, "d", {"a": 8, "e": 6}),
    "abc,bcd->abd": ((5, 6), "bd", {"a": 8, "e": 6}),
    "abc,c->abc": ((5, 8), "c", {"a": 8}),
    # Of two new axes that are flattened, the last keeps its labels.
    "abc,cde->abde": ((5, 4, 6), "de", {"a": 8, "e/d": 0, "e/e": 6}),
    "abc,cde->adeb": ((4, 6, 5), "de", {"a": 8, "e/d": 0, "e/e": 6}),
}


@pytest.mark.sampled
@pytest.mark.parametrize("equation", EQUATIONS)
def test_the_letters_of_an_equation_carry_channels(equation: str) -> None:
    shape, bias, expected = EQUATIONS[equation]
    tensor = keras.Input((5, 3))
    x = L.EinsumDense(equation, shape, bias_axes=bias, name="e")(L.Dense(8, name="a")(tensor))
    model = keras.Model(tensor, L.Dense(2, name="out")(L.Flatten()(x)))
    assert checked(model) == {**expected, "out": 0}


def test_an_einsum_dense_counts_what_its_dense_twin_counts() -> None:
    tensor = keras.Input((5, 3))
    twins = [L.Dense(6), L.EinsumDense("abc,cd->abd", (None, 6), bias_axes="d")]
    macs = [profile(keras.Model(tensor, twin(tensor)), latency=False).macs for twin in twins]
    assert macs == [5 * 3 * 6] * 2
    scale = L.EinsumDense("abc,c->abc", (5, 3))
    assert profile(keras.Model(tensor, scale(tensor)), latency=False).macs == 0


PRODUCTS: dict[str, tuple[Any, dict[str, int], int]] = {
    "matmul": (
        lambda a, b: ops.matmul(a, ops.transpose(b, (0, 2, 1))),
        {"a": 8, "out": 0},
        5 * 5 * 8,
    ),
    "dot over channels": (lambda a, b: L.Dot(axes=2)([a, b]), {"a": 8, "out": 0}, 5 * 5 * 8),
    "dot over positions": (
        lambda a, b: L.Dot(axes=1, normalize=True)([a, b]),
        {"a": 0, "b": 8, "out": 0},
        5 * 8 * 8,
    ),
    "einsum": (
        lambda a, b: ops.einsum("...ij,...kj->...ik", a, b),
        {"a": 8, "out": 0},
        5 * 5 * 8,
    ),
    "einsum of one row": (lambda a, b: ops.einsum("bij,bij->bj", a, b), {"a": 8, "out": 0}, 40),
    "constant matrix": (
        lambda a, b: ops.matmul(a + b, np.linspace(0, 1, 32, dtype="float32").reshape(8, 4)),
        {"a": 8, "matmul": 4, "out": 0},
        5 * 8 * 4,
    ),
    "tensordot": (
        lambda a, b: ops.tensordot(a + b, np.linspace(0, 1, 32, dtype="float32").reshape(8, 4), 1),
        {"a": 8, "tensordot": 4, "out": 0},
        5 * 8 * 4,
    ),
}


@pytest.mark.sampled
@pytest.mark.parametrize("name", PRODUCTS)
def test_products_tie_what_they_sum_over(name: str) -> None:
    product, expected, macs = PRODUCTS[name]
    keras.backend.clear_session(free_memory=False)
    tensor = keras.Input((5, 3))
    a, b = L.Dense(8, name="a")(tensor), L.Dense(8, name="b")(tensor)
    y = product(a, b)
    model = keras.Model(tensor, L.Dense(2, name="out")(L.Flatten()(y)))
    assert checked(model) == expected
    dense = 2 * 5 * 3 * 8 + int(np.prod(y.shape[1:])) * 2
    assert profile(model, latency=False).macs == dense + macs


@given(st.data())
def test_equations_with_dots_mean_what_numpy_means(data: st.DataObject) -> None:
    extra = data.draw(st.integers(0, 3))
    subscripts = data.draw(
        st.sampled_from(["...ij,jk->...ik", "i...,ij", "...i,...i", "i...->..."])
    )
    shapes: list[tuple[int, ...]] = [(*range(2, 2 + extra), 6, 7), (7, 8)]
    if subscripts.startswith("i..."):
        shapes = [(6, *range(2, 2 + extra)), (6, 8)][: 1 + ("," in subscripts)]
    if subscripts == "...i,...i":
        shapes = [(*range(2, 2 + extra), 6)] * 2
    equation = parse(subscripts, [len(shape) for shape in shapes])
    assert equation is not None
    sizes = equation.sizes(shapes)
    made = np.einsum(subscripts, *(np.zeros(shape) for shape in shapes)).shape
    assert tuple(sizes[letter] for letter in equation.result) == made


@pytest.mark.parametrize(("subscripts", "ranks"), [("ij,jk", [2]), ("ijk->i", [2]), ("...ij", [1])])
def test_equations_that_do_not_fit_are_refused(subscripts: str, ranks: list[int]) -> None:
    assert parse(subscripts, ranks) is None


def test_an_einsum_dense_keeps_its_settings() -> None:
    tensor = keras.Input((5, 3))
    x = L.EinsumDense("abc,cd->abd", (None, 6), bias_axes="d", activation="relu", name="e")(tensor)
    model = keras.Model(tensor, L.Dense(2)(x))
    small = PruneChannels(0.5)(model).get_layer("e")
    assert small.kernel.shape == (3, 3) and small.bias.shape == (3,)
    assert small.get_config()["output_shape"] == (None, 3)
