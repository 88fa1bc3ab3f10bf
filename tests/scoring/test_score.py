"""Scores agree with Keras and scikit-learn, and their intervals cover as often as they claim."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers
from sklearn import metrics

from saikei.errors import DataError
from saikei.scoring import (
    Score,
    Task,
    evaluate,
    infer_task,
    sample_losses,
    score_predictions,
)
from saikei.scoring.labelled import Labelled
from saikei.scoring.score import Difference

MULTICLASS = Task("multiclass", None, "accuracy", False, sparse=True, outputs=3)
REGRESSION = Task("regression", None, "mse", False, sparse=False, outputs=1)


def softmax(z):
    return np.exp(z) / np.exp(z).sum(-1, keepdims=True)


def test_accuracy_and_log_loss_are_scikit_learns():
    rng = np.random.default_rng(0)
    y, p = rng.integers(0, 3, 200), softmax(rng.normal(size=(200, 3)))
    score = score_predictions(MULTICLASS, y, p)
    assert score.value == pytest.approx(metrics.accuracy_score(y, p.argmax(1)))
    assert score.loss == pytest.approx(metrics.log_loss(y, p))
    one_hot = Task("multiclass", None, "accuracy", False, sparse=False, outputs=3)
    assert score_predictions(one_hot, np.eye(3)[y], p) == score
    logits = Task("multiclass", None, "accuracy", True, sparse=True, outputs=3)
    assert score_predictions(logits, y, np.log(p)).loss == pytest.approx(score.loss)


@pytest.mark.sampled
@pytest.mark.parametrize(
    ("activation", "y"),
    [
        ("softmax", np.arange(30) % 3),
        ("softmax", np.eye(3)[np.arange(30) % 3]),
        (None, np.arange(30) % 3),
        ("sigmoid", np.arange(90).reshape(30, 3) % 2),
        (None, np.linspace(0, 1, 90).reshape(30, 3)),
    ],
)
def test_evaluate_agrees_with_keras(activation, y):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3, activation=activation)])
    x = np.random.default_rng(0).normal(size=(30, 4)).astype("float32")
    score, task = evaluate(model, (x, y)), infer_task(model, y)
    model.compile(loss=task.loss, metrics=[task.keras_metric()])
    figures = model.evaluate(x, y.astype("float32"), verbose=0, return_dict=True)
    assert score.loss == pytest.approx(figures["loss"], rel=1e-4)
    assert score.value == pytest.approx(figures[task.metric], rel=1e-4)
    assert score.low <= score.value <= score.high
    assert score.n == 30


def test_intervals_hold_the_truth_in_about_95_of_100_cases():
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(400):
        right = rng.random(150) < 0.9
        p = np.where(right[:, None], [0.9, 0.1], [0.1, 0.9])
        task = Task("multiclass", None, "accuracy", False, sparse=True, outputs=2)
        score = score_predictions(task, np.zeros(150, int), p)
        held += score.low <= 0.9 <= score.high
    assert 0.92 <= held / 400 <= 0.98


def test_a_perfect_score_still_has_an_interval():
    score = score_predictions(MULTICLASS, np.zeros(20, int), np.tile([1.0, 0, 0], (20, 1)))
    assert score.value == score.high == 1.0
    assert 0.8 < score.low < 0.9


def test_no_interval_leaves_the_range_of_its_metric():
    # One label of four is wrong in one row of thirty, and one row has nearly all of the error.
    labels = Task("binary", None, "binary_accuracy", False, sparse=False, outputs=4)
    y = np.zeros((30, 4))
    p = np.full((30, 4), 0.1)
    p[0, 0] = 0.9
    score = score_predictions(labels, y, p)
    assert 0.9 < score.low < score.value < score.high == 1.0
    numbers = score_predictions(REGRESSION, np.zeros((30, 1)), np.eye(30)[:, :1])
    assert 0.0 == numbers.low < numbers.value < numbers.high


def test_pairing_narrows_the_interval():
    rng = np.random.default_rng(0)
    y = rng.normal(size=300)
    shared = rng.normal(size=300)
    a, b = y + shared, y + shared + 0.1 * rng.normal(size=300)
    labelled = Labelled.of([REGRESSION], [y])
    difference = labelled.difference([a[:, None]], [b[:, None]])
    scores = [score_predictions(REGRESSION, y, p[:, None]) for p in (a, b)]
    assert difference.value == pytest.approx(scores[0].value - scores[1].value)
    assert difference.high - difference.low < 0.5 * (scores[0].high - scores[0].low)
    assert labelled.difference([a[:, None]], [a[:, None]]) == Difference(0.0, 0.0, 0.0)


def test_a_shuffling_dataset_is_scored_with_its_own_labels():
    model = keras.Sequential([keras.Input((3,)), layers.Softmax()])
    x = np.random.default_rng(0).normal(size=(40, 3)).astype("float32")

    class Shuffled(keras.utils.PyDataset):
        def __len__(self):
            return 4

        def __getitem__(self, index):
            rows = np.random.default_rng().permutation(40)[:10]
            return x[rows], x[rows].argmax(axis=1)

    assert evaluate(model, Shuffled()).value == 1.0


def test_several_outputs_are_scored_by_their_summed_loss():
    x = keras.Input((3,))
    model = keras.Model(x, [layers.Softmax(name="z")(x), layers.Dense(1, name="a")(x)])
    inputs = np.random.default_rng(0).normal(size=(20, 3)).astype("float32")
    y = [inputs.argmax(1), inputs[:, 0]]
    score = evaluate(model, (inputs, y))
    predicted = [np.asarray(keras.ops.convert_to_numpy(part)) for part in model(inputs)]
    parts = [
        sample_losses(task, labels, output).mean()
        for task, labels, output in zip((MULTICLASS, REGRESSION), y, predicted, strict=True)
    ]
    assert (score.name, score.greater_is_better) == ("loss", False)
    assert score.value == score.loss == pytest.approx(sum(parts), rel=1e-5)
    # Labels by the names of the outputs are as good, in any order, as for Keras.
    assert evaluate(model, (inputs, {"a": y[1], "z": y[0]})) == score
    with pytest.raises(DataError, match=r"named \['b', 'z'\], but the outputs of model .*'a', 'z'"):
        evaluate(model, (inputs, {"b": y[1], "z": y[0]}))


def test_a_score_round_trips():
    score = Score("accuracy", 0.5, 0.4, 0.6, 10, True, 0.7)
    assert Score.from_dict(score.to_dict()) == score
    assert str(score) == "accuracy 0.5000 [0.4000, 0.6000]"


@pytest.mark.parametrize(
    ("y", "p", "message"),
    [
        (np.zeros(3, int), np.ones((4, 3)), "3 labels do not fit 4 predictions"),
        (np.zeros(0, int), np.ones((0, 3)), "no samples"),
        (np.zeros(2, int), np.full((2, 3), np.nan), "NaN"),
    ],
)
def test_what_cannot_be_scored_is_refused(y, p, message):
    with pytest.raises(DataError, match=message):
        score_predictions(MULTICLASS, y, p)


def test_labels_of_another_size_than_the_predictions_are_refused():
    task = Task("multiclass", None, "accuracy", False, True, 3)
    with pytest.raises(DataError, match=r"Labels of shape \(2, 4, 5\) do not fit predictions of"):
        score_predictions(task, np.zeros((2, 4, 5), int), np.full((2, 4, 6, 3), 1 / 3))
