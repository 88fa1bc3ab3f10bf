"""Learned weights: optimal, certified, and indifferent to the order of the members."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize

from saikei.errors import DataError, FusionError
from saikei.fusion import fit_weights
from saikei.scoring import Task, sample_losses

SPARSE = Task("multiclass", None, "accuracy", from_logits=False, sparse=True, outputs=4)
ONE_HOT = Task("multiclass", None, "accuracy", from_logits=False, sparse=False, outputs=4)
LOGITS = Task("multiclass", None, "accuracy", from_logits=True, sparse=True, outputs=4)
BINARY = Task("binary", None, "accuracy", from_logits=False, sparse=False, outputs=1)
MULTILABEL = Task("multilabel", None, "binary_accuracy", from_logits=False, sparse=False, outputs=4)
MULTILABEL_LOGITS = Task("multilabel", None, "binary_accuracy", True, False, 4)
REGRESSION = Task("regression", None, "mse", from_logits=False, sparse=False, outputs=2)
TASKS = {
    "sparse": SPARSE,
    "one-hot": ONE_HOT,
    "logits": LOGITS,
    "binary": BINARY,
    "multilabel": MULTILABEL,
    "multilabel-logits": MULTILABEL_LOGITS,
    "regression": REGRESSION,
}


def softmax(z):
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def random_case(task, members, rows, noise, seed):
    """Labels, and members that know them more or less well."""
    rng = np.random.default_rng(seed)
    if task.kind == "regression":
        y = rng.normal(size=(rows, task.outputs))
        return y, [y + noise * rng.normal(size=y.shape) + rng.normal() for _ in range(members)]
    if task.kind == "multiclass":
        classes = rng.integers(0, task.outputs, rows)
        truth = np.eye(task.outputs)[classes]
        y = classes if task.sparse else truth
        z = [2 * truth + noise * 3 * rng.normal(size=truth.shape) for _ in range(members)]
        return y, z if task.from_logits else [softmax(one) for one in z]
    y = rng.integers(0, 2, (rows, task.outputs))
    z = [(2 * y - 1) + noise * 3 * rng.normal(size=y.shape) for _ in range(members)]
    return y, z if task.from_logits else [1 / (1 + np.exp(-one)) for one in z]


def loss_of(task, weights, members, y):
    """The loss of the average, computed apart from the fit; probabilities clipped as there."""
    epsilon = keras.config.epsilon()
    if task.kind != "regression" and not task.from_logits:
        members = [np.clip(one, epsilon, 1 - epsilon) for one in members]
    mixed = sum(weight * one for weight, one in zip(weights, members, strict=True))
    return float(sample_losses(task, y, mixed).mean())


cases = given(
    name=st.sampled_from(sorted(TASKS)),
    members=st.integers(2, 6),
    rows=st.integers(1, 60),
    noise=st.sampled_from([0.01, 0.3, 1.0, 3.0]),
    seed=st.integers(0, 2**16),
)


@settings(max_examples=150, deadline=None)
@cases
def test_learned_weights_are_never_worse_than_a_single_member_or_the_equal_mean(
    name, members, rows, noise, seed
):
    task = TASKS[name]
    y, predictions = random_case(task, members, rows, noise, seed)
    fitted = fit_weights(task, predictions, y)
    assert min(fitted.values) >= 0
    assert sum(fitted.values) == pytest.approx(1, abs=1e-12)
    assert fitted.loss == pytest.approx(
        loss_of(task, fitted.values, predictions, y), rel=1e-6, abs=2e-7
    )
    for rival in [*np.eye(members), np.full(members, 1 / members)]:
        assert fitted.loss <= loss_of(task, rival, predictions, y) * (1 + 1e-9) + 2e-7


@settings(max_examples=60, deadline=None)
@cases
def test_the_stated_gap_is_true_and_small(name, members, rows, noise, seed):
    task = TASKS[name]
    y, predictions = random_case(task, members, rows, noise, seed)
    fitted = fit_weights(task, predictions, y)
    rival = optimize.minimize(
        lambda w: loss_of(task, w, predictions, y),
        np.full(members, 1 / members),
        method="SLSQP",
        bounds=[(0, 1)] * members,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1},
        options={"ftol": 1e-12},
    )
    w = np.clip(rival.x, 0, None)
    assert fitted.loss - fitted.gap <= loss_of(task, w / w.sum(), predictions, y) + 2e-7
    assert fitted.gap <= 1e-6 * max(1.0, fitted.loss)


@settings(max_examples=60, deadline=None)
@cases
def test_permuting_the_members_permutes_the_weights(name, members, rows, noise, seed):
    task = TASKS[name]
    y, predictions = random_case(task, members, rows + 20, max(noise, 0.3), seed)
    order = np.random.default_rng(seed).permutation(members)
    fitted = fit_weights(task, predictions, y)
    permuted = fit_weights(task, [predictions[i] for i in order], y)
    assert permuted.loss == pytest.approx(fitted.loss, rel=1e-7, abs=1e-9)
    assert permuted.values == pytest.approx([fitted.values[i] for i in order], abs=2e-3)


def test_weights_are_the_same_every_time():
    y, predictions = random_case(SPARSE, 5, 200, 1.0, seed=3)
    assert fit_weights(SPARSE, predictions, y) == fit_weights(SPARSE, predictions, y)


def test_twins_share_their_weight():
    y, (a, b) = random_case(SPARSE, 2, 200, 1.0, seed=0)
    alone = fit_weights(SPARSE, [a, b], y).values
    twins = fit_weights(SPARSE, [a, b, a], y).values
    assert twins == pytest.approx([alone[0] / 2, alone[1], alone[0] / 2])
    assert fit_weights(SPARSE, [a, a, a], y).values == pytest.approx([1 / 3] * 3)


def test_a_member_that_only_guesses_gets_nothing():
    y, predictions = random_case(SPARSE, 2, 2000, 0.5, seed=0)
    guess = np.roll(predictions[0], 1, axis=-1)
    assert fit_weights(SPARSE, [*predictions, guess], y).values[2] == 0


def test_two_outputs_are_weighted_for_the_sum_of_their_losses():
    y1, p1 = random_case(SPARSE, 3, 80, 1.0, seed=1)
    y2, p2 = random_case(REGRESSION, 3, 80, 1.0, seed=2)
    for tasks, ys, ps in [
        ((SPARSE, REGRESSION), [y1, y2], [p1, p2]),
        ((SPARSE, SPARSE), [y1, y1], [p1, p1[::-1]]),
        ((REGRESSION, REGRESSION), [y2, y2], [p2, p2[::-1]]),
    ]:
        fitted = fit_weights(tasks, list(zip(*ps, strict=True)), ys)

        def total(weights, tasks=tasks, ys=ys, ps=ps):
            return sum(loss_of(t, weights, p, y) for t, p, y in zip(tasks, ps, ys, strict=True))

        assert fitted.loss == pytest.approx(total(fitted.values), rel=1e-6)
        assert fitted.gap < 1e-6
        rng = np.random.default_rng(0)
        assert all(fitted.loss <= total(w) + 1e-9 for w in rng.dirichlet(np.ones(3), 50))


def test_impossible_input_gets_one_clear_line():
    y, predictions = random_case(SPARSE, 2, 10, 1.0, seed=0)
    with pytest.raises(FusionError, match="at least two members"):
        fit_weights(SPARSE, predictions[:1], y)
    with pytest.raises(DataError, match="5 labels do not fit 10 predictions"):
        fit_weights(SPARSE, predictions, y[:5])
    predictions[1][0, 0] = np.nan
    with pytest.raises(DataError, match="Member 2 predicts NaN"):
        fit_weights(SPARSE, predictions, y)
