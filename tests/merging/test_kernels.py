"""Each kernel gives the bits of its formula, written plainly over whole arrays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from saikei.errors import FusionError
from saikei.merging import kernels
from saikei.merging.kernels import threshold
from saikei.merging.kernels.blocks import BLOCK

TYPES = (np.float32, np.float16, ml_dtypes.bfloat16, np.float64)
# Below a block, above one, and enough for several threads.
SIZES = (1, 7, BLOCK + 3, 600_000)


def members(count: int, size: int, dtype: Any = np.float32, seed: int = 0) -> list[np.ndarray]:
    generator = np.random.default_rng(seed)
    return [generator.standard_normal(size).astype(dtype) for _ in range(count)]


def types(dtype: Any) -> tuple[Any, Any]:
    return (np.float64, np.longdouble) if dtype == np.float64 else (np.float32, np.float64)


def plain_linear(arrays: list[np.ndarray], weights: Any = None) -> np.ndarray:
    _, wide = types(arrays[0].dtype)
    terms = [a.astype(wide) * (1 if weights is None else weights[i]) for i, a in enumerate(arrays)]
    total = sum(terms[1:], start=terms[0])
    return (total if weights is not None else total / len(arrays)).astype(arrays[0].dtype)


def plain_ties(arrays: list[np.ndarray], base: np.ndarray, density: float, scale: float) -> Any:
    narrow, wide = types(base.dtype)
    deltas = [a.astype(narrow) - base.astype(narrow) for a in arrays]
    keep = max(1, round(density * base.size))
    trimmed = [np.where(np.abs(d) >= np.sort(np.abs(d))[-keep], d, 0) for d in deltas]
    elected = np.sign(sum((t.astype(wide) for t in trimmed[1:]), start=trimmed[0].astype(wide)))
    agree = [t * elected > 0 for t in trimmed]
    count = sum(a.astype(wide) for a in agree)
    total = sum(np.where(y, a.astype(wide), 0) for y, a in zip(agree, arrays, strict=True))
    divisor = np.maximum(count, 1)
    merged = total / divisor * scale + base.astype(wide) * (1 - scale * (count / divisor))
    return merged.astype(base.dtype)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("size", SIZES)
def test_linear_gives_the_bits_of_the_plain_formula(size: int, dtype: Any) -> None:
    arrays = members(3, size, dtype)
    np.testing.assert_array_equal(kernels.linear(arrays), plain_linear(arrays))
    weights = (0.2, 0.5, 0.3)
    np.testing.assert_array_equal(kernels.linear(arrays, weights), plain_linear(arrays, weights))


@pytest.mark.sampled
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("density", "scale"), [(0.2, 1.0), (1.0, 1.0), (0.5, 0.3)])
def test_ties_gives_the_bits_of_the_plain_formula(
    size: int, dtype: Any, density: float, scale: float
) -> None:
    *arrays, base = members(4, size, dtype)
    found = kernels.ties(arrays, base, density, scale)
    np.testing.assert_array_equal(found, plain_ties(arrays, base, density, scale))


@pytest.mark.parametrize("size", SIZES)
def test_slerp_gives_the_bits_of_the_plain_formula_below_a_block(size: int) -> None:
    a, b = members(2, size)
    x, y = a.astype(np.float64), b.astype(np.float64)
    cosine = (x @ y) / np.sqrt((x @ x) * (y @ y))
    angle = np.arccos(cosine)
    if abs(cosine) > 0.9995:
        expected = 0.7 * x + 0.3 * y
    else:
        expected = np.sin(0.7 * angle) / np.sin(angle) * x + np.sin(0.3 * angle) / np.sin(angle) * y
    np.testing.assert_allclose(kernels.slerp([a, b], 0.3), expected.astype(np.float32), rtol=2e-7)


def test_slerp_of_orthogonal_unit_vectors_stays_on_the_circle() -> None:
    a, b = np.eye(2, dtype=np.float64)
    found = kernels.slerp([a, b], 1 / 3)
    np.testing.assert_allclose(found, [np.cos(np.pi / 6), np.sin(np.pi / 6)])


def test_dare_keeps_its_share_and_its_expectation() -> None:
    base = np.zeros(400_000, np.float32)
    arrays = [np.ones_like(base), 3 * np.ones_like(base)]
    found = kernels.dare(arrays, base, drop=0.9, seed=(1,))
    # Each differs from 0 with probability 0.1 and is then multiplied by 10, and halved.
    assert set(np.unique(found)) == {0, 5, 15, 20}
    assert found.mean() == pytest.approx(2, rel=0.02)
    assert (found == 0).mean() == pytest.approx(0.81, abs=0.01)
    plain = kernels.dare(arrays, base, drop=0.9, seed=(1,), rescale=False)
    np.testing.assert_allclose(plain, found / 10, rtol=1e-6)
    assert not np.array_equal(found, kernels.dare(arrays, base, drop=0.9, seed=(2,)))


def test_dare_without_dropping_is_task_arithmetic() -> None:
    *arrays, base = members(4, 1000)
    x, b = [a.astype(np.float64) for a in arrays], base.astype(np.float64)
    np.testing.assert_array_equal(kernels.dare(arrays, base, 0.0), plain_linear(arrays))
    summed = kernels.dare(arrays, base, 0.0, consensus="sum", scale=0.4)
    np.testing.assert_allclose(summed, b + 0.4 * sum(a - b for a in x), rtol=1e-5, atol=1e-6)


def test_model_stock_follows_the_formula_of_the_paper() -> None:
    *arrays, base = members(4, 500)
    moved = [base + 0.1 * a + 0.1 * arrays[0] for a in arrays]
    deltas = [(m.astype(np.float64) - base) for m in moved]
    cosines = [
        deltas[i] @ deltas[j] / np.linalg.norm(deltas[i]) / np.linalg.norm(deltas[j])
        for i in range(3)
        for j in range(i)
    ]
    cosine = float(np.mean(cosines))
    t = 3 * cosine / (1 + 2 * cosine)
    assert 0.1 < t < 0.99
    expected = t * np.mean(moved, axis=0, dtype=np.float64) + (1 - t) * base
    np.testing.assert_allclose(kernels.model_stock(moved, base), expected, rtol=1e-5, atol=1e-6)


def test_members_that_went_opposite_ways_leave_the_base_where_it_is() -> None:
    (step, base) = members(2, 100)
    moved = [base + step, base - step]
    np.testing.assert_array_equal(kernels.model_stock(moved, base), base)


def test_fisher_weighs_each_number_by_its_information() -> None:
    arrays, information = members(2, 50), [np.abs(a) for a in members(2, 50, seed=1)]
    information[0][0] = information[1][0] = 0
    found = kernels.fisher(arrays, information)
    weights = np.stack(information).astype(np.float64) + 1e-30
    expected = np.average(np.stack(arrays).astype(np.float64), axis=0, weights=weights)
    np.testing.assert_allclose(found[1:], expected[1:], rtol=1e-5)
    assert found[0] == np.mean([arrays[0][0], arrays[1][0]], dtype=np.float64).astype(np.float32)


Merge = Callable[[list[np.ndarray], np.ndarray], np.ndarray]
MERGES: dict[str, Merge] = {
    "linear": lambda a, b: kernels.linear(a),
    "weighted": lambda a, b: kernels.linear(a, [1 / len(a)] * len(a)),
    "ties": lambda a, b: kernels.ties(a, b, density=1.0),
    "arithmetic": lambda a, b: kernels.dare(a, b, 0.0),
    "elected": lambda a, b: kernels.dare(a, b, 0.0, consensus="sign"),
    "stock": lambda a, b: kernels.model_stock(a, b),
    "fisher": lambda a, b: kernels.fisher(a, [np.abs(b) + 1] * len(a)),
}
numbers = st.floats(-(2.0**40), 2.0**40, width=32, allow_subnormal=False)


@pytest.mark.sampled
@pytest.mark.parametrize("name", MERGES)
@settings(max_examples=60, deadline=None, derandomize=True)
@given(data=st.data(), copies=st.integers(2, 7), dtype=st.sampled_from(TYPES))
def test_copies_of_one_array_give_that_array(name: str, data: Any, copies: int, dtype: Any) -> None:
    pair = data.draw(hnp.arrays(np.float32, (2, 9), elements=numbers)).clip(-6e4, 6e4)
    array, base = pair.astype(dtype)
    if name == "stock" and (array == base).any() and not (array == base).all():
        array = array + array.dtype.type(1)
    np.testing.assert_array_equal(MERGES[name]([array] * copies, base), array)


@pytest.mark.parametrize("name", [*MERGES, "trimmed"])
@settings(max_examples=40, deadline=None, derandomize=True)
@given(seed=st.integers(0, 1000), order=st.permutations(range(4)))
def test_the_order_of_members_does_not_matter(name: str, seed: int, order: list[int]) -> None:
    merge = {**MERGES, "trimmed": lambda a, b: kernels.ties(a, b, density=0.3)}[name]
    *arrays, base = members(5, 200, seed=seed)
    found = merge(arrays, base)
    np.testing.assert_array_equal(merge([arrays[i] for i in order], base), found)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(seed=st.integers(0, 1000))
def test_ties_of_differences_with_equal_signs_is_their_mean(seed: int) -> None:
    base, *steps = members(4, 100, seed=seed)
    arrays = [base + np.abs(step) + np.float32(0.1) for step in steps]
    np.testing.assert_array_equal(kernels.ties(arrays, base, density=1.0), plain_linear(arrays))


def test_ties_does_what_its_paper_shows() -> None:
    base = np.zeros(4)
    a, b, c = np.array([[3.0, -2, 0.1, 0], [1.0, 1, 0.2, 0], [-1.0, -4, -5, 0]])
    # Of each the two largest stay; the signs of their sums are +, −, −.
    np.testing.assert_array_equal(kernels.ties([a, b, c], base, density=0.5), [2, -3, -5, 0])


@pytest.mark.sampled
@pytest.mark.parametrize("density", [0.001, 0.2, 0.5, 0.999])
@pytest.mark.parametrize("shape", ["normal", "heavy", "coarse", "sorted", "sparse"])
def test_the_threshold_of_a_large_array_is_the_one_that_sorting_gives(
    shape: str, density: float
) -> None:
    size = threshold._LARGE + 12_345
    values = members(1, size)[0]
    values = {
        "normal": values,
        "heavy": values**9,
        "coarse": np.round(values),
        "sorted": np.sort(values),
        "sparse": np.where(values > 2, values, 0).astype(np.float32),
    }[shape]
    base = np.zeros_like(values)
    expected = np.sort(np.abs(values))[-round(density * size)]
    doubled = 2 * values
    found = threshold.magnitude_thresholds([values, doubled], base, density)
    assert found == [expected, 2 * expected]


@pytest.mark.parametrize("name", MERGES)
@pytest.mark.parametrize("size", [5, threshold._LARGE + 1])
def test_numbers_that_are_not_finite_are_refused(name: str, size: int) -> None:
    *arrays, base = members(3, size)
    arrays[1][size // 2] = np.nan
    with pytest.raises(FusionError, match="not finite"):
        MERGES[name](arrays, base)
    with pytest.raises(FusionError, match="not finite"):
        kernels.ties(arrays, base, density=0.2)


def test_arrays_that_differ_are_refused() -> None:
    a, b = members(2, 4)
    with pytest.raises(FusionError, match="Array 2 is float64 of shape"):
        kernels.linear([a, b.astype(np.float64)])
    with pytest.raises(FusionError, match=r"shape \(3,\)"):
        kernels.linear([a, b[:3]])
    with pytest.raises(FusionError, match="no array"):
        kernels.linear([])
    with pytest.raises(FusionError, match="int32 cannot be averaged"):
        kernels.linear([a.astype(np.int32), b.astype(np.int32)])


@pytest.mark.parametrize("name", MERGES)
@pytest.mark.parametrize("shape", [(), (0,), (2, 0, 3), (3, 2)])
def test_scalars_and_empty_arrays_keep_their_shape(name: str, shape: tuple[int, ...]) -> None:
    generator = np.random.default_rng(0)
    arrays = [np.asarray(generator.standard_normal(shape), np.float32) for _ in range(3)]
    assert MERGES[name](arrays, arrays[0]).shape == shape


def test_strided_arrays_are_merged_as_they_look() -> None:
    arrays = [array.reshape(6, 8)[::2, ::-1].T for array in members(3, 48)]
    np.testing.assert_array_equal(kernels.linear(arrays), plain_linear(arrays))
