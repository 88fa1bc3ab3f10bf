"""Weights for each class are never worse than shared ones, and as good as they report."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, special

from saikei.errors import DataError
from saikei.fusion import fit_weights
from saikei.fusion.average.class_weights import fit_class_weights
from saikei.scoring import Task
from saikei.scoring.score import sample_losses

MANY = Task("multiclass", None, "accuracy", from_logits=False, sparse=True, outputs=3)
LOGITS = replace(MANY, from_logits=True)
ANY = Task("multilabel", None, "binary_accuracy", from_logits=False, sparse=False, outputs=3)
ONE = Task("binary", None, "accuracy", from_logits=False, sparse=False, outputs=1)
NUMBERS = Task("regression", None, "mse", from_logits=False, sparse=False, outputs=3)
TASKS = [MANY, LOGITS, ANY, replace(ANY, from_logits=True), ONE, NUMBERS]


def squashed(task, z):
    if task.from_logits or task.kind == "regression":
        return z
    return special.softmax(z, -1) if task.kind == "multiclass" else special.expit(z)


def made(task, seed, members=3, rows=40, spread=2.0):
    """Members that each know something, and labels."""
    rng = np.random.default_rng(seed)
    width = task.outputs
    if task.kind == "regression":
        y = rng.normal(size=(rows, width))
    elif task.sparse:
        y = rng.integers(0, width, rows)
    else:
        y = rng.integers(0, 2, (rows, width))
    hint = np.eye(width)[y] if task.sparse else y
    z = [
        hint * rng.random() * 3 + rng.normal(scale=spread, size=(rows, width))
        for _ in range(members)
    ]
    return [squashed(task, one) for one in z], y


def mixed(task, predictions, table):
    """The average with weights for each class; in logits the softmax follows."""
    total = np.einsum("mnc,cm->nc", np.stack(predictions), np.array(table))
    if task.kind == "multiclass" and not task.from_logits:
        total /= total.sum(-1, keepdims=True)
    return total


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(TASKS), st.integers(0, 10**6), st.integers(2, 5), st.floats(0.1, 5))
def test_they_are_never_worse_than_shared_weights_and_have_the_loss_that_they_report(
    task, seed, members, spread
):
    predictions, y = made(task, seed, members, spread=spread)
    fitted = fit_class_weights([task], [[one] for one in predictions], [y])
    table = np.array(fitted.values[0])
    assert table.shape == (task.outputs, members)
    assert (table >= 0).all()
    np.testing.assert_allclose(table.sum(axis=1), 1, atol=1e-9)
    shared = fit_weights(task, predictions, y)
    assert fitted.shared_loss == pytest.approx(shared.loss, rel=1e-4, abs=1e-6)
    assert fitted.loss <= fitted.shared_loss + 1e-9
    own = sample_losses(task, y, mixed(task, predictions, table)).mean()
    assert fitted.loss == pytest.approx(own, rel=1e-4, abs=1e-6)


@settings(max_examples=20, deadline=None)
@given(st.sampled_from([LOGITS, ANY, ONE, NUMBERS]), st.integers(0, 10**6))
def test_where_the_problem_is_convex_no_table_beats_them_by_more_than_the_gap(task, seed):
    predictions, y = made(task, seed)
    fitted = fit_class_weights([task], [[one] for one in predictions], [y])
    assert fitted.gap is not None
    assert fitted.gap <= 1e-4
    rng = np.random.default_rng(seed)
    for sharp in (0.1, 1.0, 10.0):
        for table in rng.dirichlet([sharp] * 3, (30, task.outputs)):
            loss = sample_losses(task, y, mixed(task, predictions, table)).mean()
            assert fitted.loss <= loss + fitted.gap + 1e-6


@pytest.mark.parametrize(("rows", "members", "spread"), [(50, 8, 60), (30, 30, 5), (200, 10, 0.01)])
def test_the_bound_is_narrow_for_logits_of_any_size(rows, members, spread):
    predictions, y = made(LOGITS, 1, members, rows, spread)
    certain = [np.maximum(special.log_softmax(one, -1), np.log(1e-30)) for one in predictions]
    assert fit_weights(LOGITS, certain, y).gap <= 1e-5
    assert fit_class_weights([LOGITS], [[one] for one in certain], [y]).gap <= 1e-5


def test_a_general_solver_finds_nothing_better_in_logits():
    predictions, y = made(LOGITS, 5, members=2)
    fitted = fit_class_weights([LOGITS], [[one] for one in predictions], [y])

    def loss(first):
        table = np.stack([first, 1 - first], axis=1)
        return sample_losses(LOGITS, y, mixed(LOGITS, predictions, table)).mean()

    found = optimize.minimize(loss, np.full(3, 0.5), bounds=[(0, 1)] * 3, tol=1e-12)
    assert fitted.loss == pytest.approx(found.fun, abs=1e-6)


@pytest.mark.parametrize("task", [MANY, LOGITS], ids=["probabilities", "logits"])
def test_where_all_classes_are_alike_they_are_the_shared_weights(task):
    predictions, y = made(task, 2)
    # Each row in each order of the classes: no class differs from another any more.
    orders = [list(order) for order in itertools.permutations(range(3))]
    alike = [np.concatenate([one[:, order] for order in orders]) for one in predictions]
    moved = np.concatenate([np.argsort(order)[y] for order in orders])
    fitted = fit_class_weights([task], [[one] for one in alike], [moved])
    shared = fit_weights(task, predictions, y)
    assert fitted.loss == pytest.approx(shared.loss, abs=1e-5)
    np.testing.assert_allclose(np.array(fitted.values[0]), [shared.values] * 3, atol=0.02)


def test_a_member_that_is_right_on_one_class_counts_for_it():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, (400, 2))
    noise = np.full(400, 0.5)
    sure = np.where(y, 0.9, 0.1)
    first = np.stack([sure[:, 0], noise], axis=1)
    second = np.stack([noise, sure[:, 1]], axis=1)
    task = replace(ANY, outputs=2)
    fitted = fit_class_weights([task], [[first], [second]], [y])
    np.testing.assert_allclose(np.array(fitted.values[0]), np.eye(2), atol=1e-6)
    assert fitted.loss < fitted.shared_loss - 0.1


def test_outputs_are_fitted_one_by_one_and_their_losses_add_up():
    (a, ya), (b, yb) = made(MANY, 0), made(NUMBERS, 1)
    both = fit_class_weights(
        [MANY, NUMBERS], [list(pair) for pair in zip(a, b, strict=True)], [ya, yb]
    )
    first = fit_class_weights([MANY], [[one] for one in a], [ya])
    second = fit_class_weights([NUMBERS], [[one] for one in b], [yb])
    assert both.values == (*first.values, *second.values)
    assert both.loss == pytest.approx(first.loss + second.loss)
    assert (first.gap, both.gap) == (None, None)
    assert second.gap is not None


def test_one_hot_labels_and_class_numbers_give_the_same():
    predictions, y = made(LOGITS, 4)
    numbers = fit_class_weights([LOGITS], [[one] for one in predictions], [y])
    one_hot = fit_class_weights(
        [replace(LOGITS, sparse=False)], [[one] for one in predictions], [np.eye(3)[y]]
    )
    np.testing.assert_allclose(numbers.values, one_hot.values, atol=1e-6)


def test_one_class_and_members_that_are_the_same_are_no_trouble():
    ones = [np.ones((5, 1)), np.ones((5, 1))]
    fitted = fit_class_weights(
        [replace(MANY, outputs=1)], [[one] for one in ones], [np.zeros(5, int)]
    )
    assert fitted.loss == pytest.approx(0, abs=1e-6)
    predictions, y = made(LOGITS, 0, members=1)
    twins = fit_class_weights([LOGITS], [predictions, predictions], [y])
    np.testing.assert_allclose(twins.values[0], 0.5)


def test_labels_out_of_range_and_nan_are_refused():
    predictions, y = made(LOGITS, 0)
    for task, wrong in ((LOGITS, 3), (MANY, -1)):
        with pytest.raises(DataError, match="0 to 2"):
            fit_class_weights([task], [[one] for one in predictions], [np.where(y == 2, wrong, y)])
    with pytest.raises(DataError, match="Member 2 predicts NaN"):
        fit_class_weights([LOGITS], [[predictions[0]], [predictions[1] * np.nan]], [y])
