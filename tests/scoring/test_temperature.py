"""A fitted temperature never harms, and finds the one that made the labels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special

from saikei.errors import DataError, FusionError
from saikei.scoring import Task
from saikei.scoring.score import sample_losses
from saikei.scoring.temperature import COLDEST, HOTTEST, fit_temperature

MANY = Task("multiclass", None, "accuracy", from_logits=True, sparse=True, outputs=3)
ONE = Task("binary", None, "accuracy", from_logits=True, sparse=False, outputs=1)
ANY = Task("multilabel", None, "binary_accuracy", from_logits=True, sparse=False, outputs=3)
RNG = np.random.default_rng


def drawn(task, z, seed=0):
    """Labels drawn from the probabilities that logits mean."""
    rng = RNG(seed)
    if task.kind != "multiclass":
        return (rng.random(z.shape) < special.expit(z)).astype(int)
    p = special.softmax(z, -1)
    return (p.cumsum(-1) < rng.random((len(z), 1))).sum(-1).clip(0, z.shape[-1] - 1)


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from([MANY, ONE, ANY]), st.integers(0, 10**6), st.integers(1, 40), st.floats(0, 9)
)
def test_it_never_raises_the_log_loss_and_no_other_temperature_is_better(task, seed, rows, spread):
    z = RNG(seed).normal(scale=spread, size=(rows, task.outputs))
    y = RNG(seed + 1).integers(0, 3 if task is MANY else 2, rows if task is MANY else z.shape)
    found = fit_temperature(task, z, y)
    assert COLDEST <= found.value <= HOTTEST
    assert found.loss <= found.loss_before
    assert found.loss_before == pytest.approx(sample_losses(task, y, z).mean())
    assert found.loss == pytest.approx(sample_losses(task, y, z / found.value).mean())
    for other in np.geomspace(COLDEST, HOTTEST, 30):
        assert found.loss <= sample_losses(task, y, z / other).mean() + 1e-9


@pytest.mark.sampled
@pytest.mark.parametrize("true", [0.4, 1.0, 2.5])
@pytest.mark.parametrize("task", [MANY, ONE, ANY], ids=lambda task: task.kind)
def test_it_finds_the_temperature_that_the_labels_were_drawn_at(task, true):
    z = RNG(3).normal(scale=2, size=(20_000, task.outputs))
    assert fit_temperature(task, z * true, drawn(task, z)).value == pytest.approx(true, rel=0.05)


def test_soft_labels_and_maps_count_as_they_are():
    z = RNG(0).normal(size=(6, 5, 3))
    soft = special.softmax(z, -1)
    task = Task("multiclass", None, "accuracy", from_logits=True, sparse=False, outputs=3)
    assert fit_temperature(task, 3 * z, soft).value == pytest.approx(3.0, rel=1e-4)


def test_a_member_that_is_always_right_gets_the_coldest_and_one_without_opinion_none():
    z = 5 * np.eye(3)
    assert fit_temperature(MANY, z, np.arange(3)).value == pytest.approx(COLDEST)
    assert fit_temperature(MANY, -z, np.arange(3)).value == pytest.approx(HOTTEST)
    assert fit_temperature(MANY, np.zeros((3, 3)), np.arange(3)).value == 1.0


def test_a_regression_and_labels_that_do_not_fit_are_refused():
    numbers = Task("regression", None, "mse", from_logits=False, sparse=False, outputs=1)
    with pytest.raises(FusionError, match="no probabilities to calibrate"):
        fit_temperature(numbers, np.zeros((3, 1)), np.zeros(3))
    with pytest.raises(DataError, match="do not fit"):
        fit_temperature(MANY, np.zeros((3, 3)), np.zeros(4, int))
    with pytest.raises(DataError, match="0 to 2"):
        fit_temperature(MANY, np.zeros((3, 3)), np.array([0, 1, 3]))
    with pytest.raises(DataError, match="-1"):
        fit_temperature(MANY, np.zeros((3, 3)), np.array([0, 1, -1]))
