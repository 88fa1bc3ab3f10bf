"""The solution is the ridge regression's, and never worse on its own rows than what was there."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saikei.calibration.least_squares import NormalEquations, best_change


def equations(x: np.ndarray, r: np.ndarray) -> NormalEquations:
    found = NormalEquations.empty(x.shape[0], x.shape[2], r.shape[2])
    half = x.shape[1] // 2
    found.add(x[:, :half], r[:, :half])
    found.add(x[:, half:], r[:, half:])
    return found


@pytest.mark.parametrize("intercept", [True, False])
def test_without_ridge_it_is_the_least_squares_solution(intercept: bool) -> None:
    generator = np.random.default_rng(0)
    x, r = generator.normal(1.0, 1.0, (3, 50, 4)), generator.normal(2.0, 1.0, (3, 50, 2))
    change = equations(x, r).solve(1e-13, intercept)
    for system in range(3):
        columns = np.c_[x[system], np.ones(50) if intercept else np.zeros(50)]
        expected = np.linalg.lstsq(columns, r[system], rcond=None)[0]
        np.testing.assert_allclose(change[system], expected, atol=1e-8)


def test_the_error_is_that_of_the_rows() -> None:
    generator = np.random.default_rng(1)
    x, r = generator.normal(size=(2, 30, 3)), generator.normal(size=(2, 30, 2))
    change = generator.normal(size=(2, 4, 2))
    residuals = x @ change[:, :-1] + change[:, -1:] - r
    assert equations(x, r).error(change) == pytest.approx(np.square(residuals).sum())


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 40), st.integers(1, 12), st.booleans(), st.booleans())
def test_a_change_never_makes_its_own_rows_worse(
    seed: int, rows: int, features: int, intercept: bool, collinear: bool
) -> None:
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(1, rows, features))
    if collinear:
        x[..., -1] = x[..., 0]
    r = generator.normal(size=(1, rows, 3))
    kept, held = rows - rows // 5, rows // 5
    fit = equations(x[:, :kept], r[:, :kept])
    held_out = NormalEquations.empty(1, features, 3)
    if held:
        held_out.add(x[:, kept:], r[:, kept:])
    change = best_change(fit, held_out, intercept)
    if change is not None:
        assert fit.plus(held_out).error(change) <= np.square(r).sum() * (1 + 1e-9)


def test_noise_that_no_weights_explain_is_left_alone() -> None:
    generator = np.random.default_rng(0)
    x = generator.normal(size=(1, 20, 15))
    held_out = NormalEquations.empty(1, 15, 1)
    held_out.add(generator.normal(size=(1, 20, 15)), 1e-3 * generator.normal(size=(1, 20, 1)))
    fit = equations(x, 5 * generator.normal(size=(1, 20, 1)))
    assert best_change(fit, held_out, intercept=False) is None


def test_directions_without_samples_keep_their_weights() -> None:
    x = np.zeros((1, 40, 2))
    x[..., 0] = np.linspace(-1, 1, 40)
    change = equations(x, 3 * x[..., :1]).solve(1e-6, intercept=False)
    assert change[0, 0, 0] == pytest.approx(3, rel=1e-4)
    assert change[0, 1, 0] == 0
