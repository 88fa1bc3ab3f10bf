"""Metrics by name are those of scikit-learn and Keras, and class weights are sample weights."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

import saikei as sk
from saikei.errors import DataError, InputError
from saikei.scoring import infer_task, weigh_classes
from saikei.scoring.observed import held_out

layers = keras.layers
RNG = np.random.default_rng(0)
N = 80
X = RNG.normal(size=(N, 4)).astype("float32")
BINARY = (X[:, 0] + 0.7 * RNG.normal(size=N) > 0.5).astype(int)
CLASSES = np.clip(np.round(X[:, 0] + 1), 0, 2).astype(int)
WEIGHTS = RNG.integers(0, 3, N).astype("float32")


def net(units: int, activation: str | None, seed: int = 0) -> keras.Model:
    keras.utils.set_random_seed(seed)
    return keras.Sequential([keras.Input((4,)), layers.Dense(units, activation=activation)])


@pytest.fixture(scope="module")
def binary() -> keras.Model:
    return net(1, "sigmoid")


@pytest.mark.sampled
@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize(
    ("name", "function", "decided"),
    [
        ("auc", sklearn_metrics.roc_auc_score, False),
        ("f1", sklearn_metrics.f1_score, True),
        ("balanced_accuracy", sklearn_metrics.balanced_accuracy_score, True),
        ("neg_log_loss", sklearn_metrics.log_loss, False),
    ],
)
def test_a_name_is_scikit_learns_metric(
    binary: keras.Model, name: str, function: Any, decided: bool, weights: Any
) -> None:
    p = binary.predict_on_batch(X)[:, 0].astype(float)
    expected = function(BINARY, p > 0.5 if decided else p, sample_weight=weights)
    data = (X, BINARY) if weights is None else (X, BINARY, weights)
    score = sk.evaluate(binary, data, metric=name)
    assert score.value == pytest.approx(expected, abs=1e-6)
    assert score.name == name
    assert score.low < score.value < score.high
    assert score.greater_is_better == (name != "neg_log_loss")
    assert score.loss == pytest.approx(sk.evaluate(binary, data).loss)


@pytest.mark.sampled
@pytest.mark.parametrize("name", ["roc_auc", "f1", "balanced_accuracy", "neg_log_loss"])
def test_several_classes_are_one_against_the_rest_and_averaged(name: str) -> None:
    for y, units in ((CLASSES, 3), (np.eye(3)[CLASSES], 3)):
        model = net(units, "softmax")
        p = model.predict_on_batch(X).astype(float)
        p /= p.sum(axis=1, keepdims=True)
        expected = {
            "roc_auc": lambda p=p: sklearn_metrics.roc_auc_score(CLASSES, p, multi_class="ovr"),
            "f1": lambda p=p: sklearn_metrics.f1_score(CLASSES, p.argmax(1), average="macro"),
            "balanced_accuracy": lambda p=p: sklearn_metrics.balanced_accuracy_score(
                CLASSES, p.argmax(1)
            ),
            "neg_log_loss": lambda p=p: sklearn_metrics.log_loss(CLASSES, p),
        }[name]()
        assert sk.evaluate(model, (X, y), metric=name).value == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("metric", "better"),
    [("cosine_similarity", True), (keras.metrics.RootMeanSquaredError(), False)],
)
def test_metrics_of_keras_know_their_direction(metric: Any, better: bool) -> None:
    model, y = net(2, None), X[:, :2] + 0.1
    score = sk.evaluate(model, (X, y), metric=metric)
    own = keras.metrics.get(metric)
    own = own if isinstance(own, keras.metrics.Metric) else keras.metrics.CosineSimilarity()
    own.reset_state()
    own.update_state(y, model.predict_on_batch(X))
    assert score.value == pytest.approx(float(own.result()), rel=1e-5)
    assert score.greater_is_better == better


@pytest.mark.parametrize("metric", ["sparse_top_k_categorical_accuracy", "F1Score"])
def test_class_numbers_fit_metrics_of_keras(metric: str) -> None:
    model = net(3, "softmax")
    scores = metric == "F1Score"
    own = keras.metrics.F1Score() if scores else keras.metrics.SparseTopKCategoricalAccuracy()
    rows = np.eye(3, dtype="float32")[CLASSES] if scores else CLASSES
    own.update_state(rows, model.predict_on_batch(X))
    expected = float(np.mean(keras.ops.convert_to_numpy(own.result())))
    assert sk.evaluate(model, (X, CLASSES), metric=metric).value == pytest.approx(expected)


def test_a_function_is_a_metric(binary: keras.Model) -> None:
    def sure(y: Any, p: Any) -> float:
        return float(np.abs(p - 0.5).mean())

    expected = np.abs(binary.predict_on_batch(X) - 0.5).mean()
    assert sk.evaluate(binary, (X, BINARY), metric=sure).value == pytest.approx(expected, rel=1e-5)
    with pytest.raises(DataError, match="takes no sample_weight"):
        sk.evaluate(binary, (X, BINARY, WEIGHTS), metric=sure)


def test_metrics_that_are_not_or_do_not_fit_are_named(binary: keras.Model) -> None:
    with pytest.raises(InputError, match="metric='best' is unknown"):
        sk.evaluate(binary, (X, BINARY), metric="best")
    with pytest.raises(DataError, match="metric='f1' does not fit a regression output"):
        sk.evaluate(net(1, None), (X, X[:, 0]), metric="f1")


@pytest.mark.long
def test_the_search_judges_by_the_metric_and_pairs_its_differences(binary: keras.Model) -> None:
    judge = held_out(binary, (X, BINARY), "auc")
    outputs = judge.predict(binary), judge.predict(net(1, "sigmoid", seed=1))
    first, second = (judge.score(one) for one in outputs)
    found = judge.difference(*outputs)
    assert found.value == pytest.approx(first.value - second.value)
    assert found.low < found.value < found.high
    same = judge.difference(outputs[0], outputs[0])
    assert (same.value, same.low, same.high) == (0, 0, 0)


def test_class_weights_are_sample_weights() -> None:
    found = []
    balanced = N / 2 / np.bincount(BINARY)
    for arguments, data in (
        ({"class_weight": "balanced"}, (X, BINARY)),
        ({"class_weight": dict(enumerate(balanced))}, (X, BINARY)),
        ({}, (X, BINARY, balanced[BINARY])),
    ):
        model = net(1, "sigmoid")
        sk.fit(model, data, epochs=1, learning_rate=0.01, progress=False, **arguments)
        found.append(model.get_weights())
    for weights in found[1:]:
        for one, other in zip(found[0], weights, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-6)
    weighed = weigh_classes(net(1, "sigmoid"), (X, BINARY), "balanced")
    score = sk.evaluate(net(1, "sigmoid"), weighed)
    by_name = sk.evaluate(net(1, "sigmoid"), (X, BINARY), metric="balanced_accuracy")
    assert score.value == pytest.approx(by_name.value)
    with pytest.raises(InputError, match=r"class_weight=\{7: 1\}"):
        sk.fit(net(1, "sigmoid"), (X, BINARY), class_weight={7: 1}, progress=False)


def test_numbers_under_a_sigmoid_are_a_regression() -> None:
    model = net(1, "sigmoid")
    assert infer_task(model, RNG.random(N)).kind == "regression"
    assert infer_task(model, np.where(BINARY, 0.95, 0.05)).kind == "binary"
    assert infer_task(model, BINARY.astype(float)).kind == "binary"
    assert infer_task(model, RNG.random(N), "binary_crossentropy").kind == "binary"
