"""AdaBoost: rows weigh what earlier members get wrong, and members vote with weights."""

from __future__ import annotations

from functools import cache
from typing import ClassVar

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers as L
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.ensemble import AdaBoostClassifier

import saikei as sk
from saikei import Boost
from saikei.errors import DataError, FusionError
from saikei.fusion.boost import adaboost
from saikei.graph import copy_model
from saikei.scoring.task import Task

FAST = {"epochs": 6, "batch_size": 32, "learning_rate": 2e-2}
RNG = np.random.default_rng(0)
X = RNG.uniform(-1, 1, size=(240, 2)).astype("float32")
RING = ((X**2).sum(axis=1) > 0.5).astype(int) + (X[:, 0] > 0.5)
DISC = (RING > 0).astype(int)
CLASSES = {"softmax": 3, "two": 2, "sigmoid": 2, "logits": 3, "logit": 2}


def weak(kind, seed=0):
    keras.utils.set_random_seed(seed)
    end = {
        "softmax": L.Dense(3, activation="softmax"),
        "two": L.Dense(2, activation="softmax"),
        "sigmoid": L.Dense(1, activation="sigmoid"),
        "logits": L.Dense(3),
        "logit": L.Dense(1),
    }[kind]
    return keras.Sequential([keras.Input((2,)), L.Dense(2, activation="tanh"), end])


def data(kind):
    return X, RING if CLASSES[kind] == 3 else DISC


@cache
def boosted(kind):
    return Boost(rounds=3, method="samme", keep_first=False, **FAST).fuse([weak(kind)], data(kind))


def own_votes(model, kind, number):
    predicted = np.asarray(model.get_layer(f"member_{number}")(X))
    if predicted.shape[1] > 1:
        return predicted.argmax(axis=1)
    return (predicted[:, 0] > (0 if kind == "logit" else 0.5)).astype(int)


def by_hand(predictions, labels, count, start=None):
    """SAMME as the paper's algorithm 2 has it, one row weight at a time."""
    w = np.full(len(labels), 1 / len(labels)) if start is None else start / start.sum()
    alphas, errors, history = [], [], [w]
    for predicted in predictions:
        wrong = predicted != labels
        errors.append(w[wrong].sum() / w.sum())
        alphas.append(np.log((1 - errors[-1]) / errors[-1]) + np.log(count - 1))
        w = w * np.exp(alphas[-1] * wrong)
        w = w / w.sum()
        history.append(w)
    return alphas, errors, history


@pytest.mark.long
@pytest.mark.parametrize(
    "kind",
    [
        "sigmoid",
        *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("logits", "two", "logit")),
    ],
)
def test_the_weights_are_those_of_the_paper_and_the_model_is_the_weighted_vote(kind):
    fitted, labels, count = boosted(kind), data(kind)[1], CLASSES[kind]
    predicted = [own_votes(fitted.model, kind, i + 1) for i in range(len(fitted.steps))]
    assert len(predicted) >= 2
    alphas, errors, _ = by_hand(predicted, labels, count)
    assert fitted.steps == pytest.approx(alphas, rel=1e-6)
    assert fitted.errors == pytest.approx(errors, rel=1e-6)
    totals = sum(a * np.eye(count)[v] for a, v in zip(alphas, predicted, strict=True))
    expected = np.exp(totals) / np.exp(totals).sum(axis=1, keepdims=True)
    outputs = np.asarray(fitted.model(X))
    if kind == "logits":
        np.testing.assert_allclose(outputs, totals, atol=1e-5)
    elif kind == "logit":
        np.testing.assert_allclose(1 / (1 + np.exp(-outputs[:, 0])), expected[:, 1], atol=1e-5)
    else:
        np.testing.assert_allclose(
            outputs, expected[:, 1:] if kind == "sigmoid" else expected, atol=1e-5
        )


class Given(ClassifierMixin, BaseEstimator):
    """Predicts what a member predicted, one member after the other."""

    queue: ClassVar[list[np.ndarray]] = []

    def fit(self, x, y, sample_weight=None):
        self.classes_, self.predicted = np.unique(y), self.queue.pop(0)
        return self

    def predict(self, x):
        return self.predicted


@pytest.mark.parametrize(
    ("kind", "weighted"),
    [
        pytest.param("softmax", True, marks=pytest.mark.long),
        pytest.param("sigmoid", False, marks=pytest.mark.slow),
    ],
)
def test_the_weights_are_those_of_scikit_learn(kind, weighted):
    x, y = data(kind)
    start = RNG.uniform(0.5, 2, size=len(y)) if weighted else np.ones(len(y))
    boost = Boost(rounds=3, method="samme", keep_first=False, **FAST)
    fitted = boost.fuse([weak(kind)], (x, y, start) if weighted else (x, y))
    Given.queue = [own_votes(fitted.model, kind, i + 1) for i in range(len(fitted.steps))]
    theirs = AdaBoostClassifier(Given(), n_estimators=len(fitted.steps)).fit(x, y, start)
    assert fitted.steps == pytest.approx(theirs.estimator_weights_, rel=1e-6)
    assert fitted.errors == pytest.approx(theirs.estimator_errors_, rel=1e-6)


def predictions_and_labels():
    return st.integers(2, 5).flatmap(
        lambda count: st.tuples(
            st.just(count),
            st.integers(0, 2**32 - 1),
            st.integers(1, 6),
            st.floats(0.05, 0.6),
        )
    )


@settings(max_examples=60, deadline=None)
@given(predictions_and_labels())
def test_after_a_round_its_member_is_as_bad_as_chance_and_the_loss_never_goes_up(drawn):
    count, seed, rounds, share = drawn
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, count, size=200)
    start = rng.uniform(0.1, 1, size=200)
    start /= start.sum()
    total, weights, last, bound = np.zeros((200, count)), start, 1.0, 1.0
    for _ in range(rounds):
        predicted = np.where(rng.random(200) < share, rng.integers(0, count, size=200), labels)
        error = float(weights[predicted != labels].sum())
        if not 0 < error < 1 - 1 / count:
            return
        alpha = adaboost.member_weight(error, count)
        assert alpha > 0
        total = total + alpha * np.eye(count)[predicted]
        weights = adaboost.row_weights(total, labels, start)
        assert weights.sum() == pytest.approx(1)
        assert weights[predicted != labels].sum() == pytest.approx(1 - 1 / count)
        loss = adaboost.mean_loss(total, labels, start)
        # Each round's factor is known: for two classes it is 2 √(error (1 - error)).
        bound *= count * (1 - error) * np.exp(-alpha * (1 - 1 / count))
        assert loss == pytest.approx(bound)
        assert loss <= last + 1e-12
        last = loss
    if count == 2:
        assert start[total.argmax(axis=1) != labels].sum() <= last + 1e-12


def test_training_errors_of_two_classes_stay_below_the_loss_and_the_loss_falls():
    fitted = boosted("sigmoid")
    assert all(np.diff(fitted.losses) < 0)
    bound = np.prod([2 * np.sqrt(e * (1 - e)) for e in fitted.errors])
    assert fitted.losses[-1] == pytest.approx(bound, rel=1e-6)
    wrong = (np.asarray(fitted.model(X))[:, 0] > 0.5) != DISC
    assert wrong.mean() <= fitted.losses[-1]


@pytest.mark.long
def test_rows_of_weight_nothing_do_not_count():
    noise = np.random.default_rng(1).permutation(DISC)
    x, y = np.concatenate([X, X]), np.concatenate([DISC, noise])
    start = np.concatenate([np.ones(240), np.zeros(240)])
    boost = Boost(rounds=3, method="samme", keep_first=False, **FAST)
    fitted = boost.fuse([weak("sigmoid")], (x, y, start))
    predicted = [own_votes(fitted.model, "sigmoid", i + 1) for i in range(len(fitted.steps))]
    assert fitted.errors == pytest.approx(by_hand(predicted, DISC, 2)[1], rel=1e-5)


@pytest.mark.long
def test_gradient_boosting_honours_weights_of_rows_too():
    x, y = np.concatenate([X, X]), np.concatenate([X[:, 0], -5 - X[:, 0]])
    start = np.concatenate([np.ones(240), np.zeros(240)])
    member = keras.Sequential([keras.Input((2,)), L.Dense(1)])
    fitted = Boost(rounds=2, keep_first=False, shrinkage=0.5, **FAST).fuse([member], (x, y, start))
    own = ((np.asarray(fitted.model(X))[:, 0] - X[:, 0]) ** 2).mean()
    assert fitted.losses[-1] == pytest.approx(own, rel=1e-4)


@pytest.mark.long
def test_a_first_member_is_kept_and_the_model_is_loaded_without_us(tmp_path):
    first = weak("softmax", seed=3)
    sk.fit(first, data("softmax"), progress=False, **FAST)
    model = Boost(rounds=3, method="samme", **FAST)([first], data("softmax"))
    for kept, weight in zip(
        model.get_layer("member_1").get_weights(), first.get_weights(), strict=True
    ):
        np.testing.assert_array_equal(kept, weight)
    model.save(tmp_path / "boost.keras")
    loaded = keras.saving.load_model(tmp_path / "boost.keras", safe_mode=True)
    expected = model(X)
    for other in (loaded, copy_model(model)):
        np.testing.assert_allclose(other(X), expected, atol=1e-6)
    assert sk.evaluate(model, data("softmax")).value > 0.5


def constant(bias):
    """The same output for every row, and nothing to learn."""
    model = keras.Sequential([keras.Input((2,)), L.Dense(2, activation="softmax")])
    model.layers[0].set_weights([np.zeros((2, 2)), np.array(bias, dtype="float32")])
    return model


def test_a_member_no_better_than_chance_is_refused_or_ends_the_series():
    balanced = (np.arange(240) % 2).astype(int)
    with pytest.raises(FusionError, match=r"member 1 gets 0.5 of the weighted rows wrong, no bett"):
        Boost(rounds=2, method="samme", **FAST)([constant([0, 1])], (X, balanced))
    mostly = (np.arange(240) % 3 > 0).astype(int)
    # A first one that is right on the majority, and then one that cannot learn: its inputs are 0.
    blank = keras.Sequential(
        [keras.Input((2,)), L.Rescaling(0.0), L.Dense(2, activation="softmax")]
    )
    boost = Boost(rounds=3, method="samme", epochs=1, learning_rate=1e-6)
    with pytest.raises(FusionError, match="member 2 gets .* so there is no series"):
        boost([constant([0, 1]), blank, blank], (X, mostly))


def test_a_member_without_errors_ends_the_series():
    perfect = keras.Sequential([keras.Input((2,)), L.Dense(2, activation="softmax")])
    perfect.layers[0].set_weights([np.array([[0, 50.0], [0, 0]]), np.zeros(2)])
    y = (X[:, 0] > 0).astype(int)
    with pytest.raises(
        FusionError, match="member 1 makes no errors on the training rows, so there"
    ):
        Boost(rounds=3, method="samme", **FAST)([perfect], (X, y))


@pytest.mark.slow
def test_validation_rows_end_the_series():
    boost = Boost(rounds=5, method="samme", keep_first=False, **FAST)
    with pytest.raises(FusionError, match="member 2 makes the .* validation rows no lower"):
        boost.fuse([weak("sigmoid")], (X[100:], DISC[100:]), (X[:100], 1 - DISC[:100]))
    watched = boost.fuse([weak("sigmoid")], (X[100:], DISC[100:]), (X[:100], DISC[:100]))
    assert all(np.diff(watched.validation_losses) < 0)
    assert len(watched.steps) == 5 or watched.ended is not None
    assert watched.to_dict()["ended"] == watched.ended


def test_votes_of_one_hot_labels_and_of_logits():
    hot = Task("multiclass", None, "accuracy", False, False, 3)
    np.testing.assert_array_equal(adaboost.true_classes(hot, np.eye(3)[[2, 0]]), [2, 0])
    logit = Task("binary", None, "accuracy", True, False, 1)
    np.testing.assert_array_equal(
        adaboost.votes(logit, np.array([[0.2], [-0.2]])), [[0, 1], [1, 0]]
    )


@pytest.mark.parametrize(
    ("end", "labels"),
    [
        (L.Dense(1), X[:, 0]),
        (L.Dense(2, activation="sigmoid"), (X > 0).astype(int)),
        (L.Dense(1, activation="softmax"), np.zeros(240, int)),
    ],
)
def test_outputs_that_are_no_classes_are_refused(end, labels):
    member = keras.Sequential([keras.Input((2,)), end])
    with pytest.raises(FusionError, match="method='gradient'"):
        Boost(rounds=2, method="samme")([member], (X, labels))


def test_arguments_and_weights_out_of_range_are_refused():
    with pytest.raises(FusionError, match="method='ada'"):
        Boost(method="ada")
    for bad in (np.ones(3), np.zeros(240), -np.ones(240), np.full(240, np.nan)):
        with pytest.raises(
            DataError, match="[Ss]ample weights|arrays of 3 and 240|Nothing .* counts"
        ):
            Boost(rounds=2, method="samme")([weak("sigmoid")], (X, DISC, bad))
    boost = Boost(rounds=4, method="samme")
    assert Boost.from_dict(boost.to_dict()) == boost
