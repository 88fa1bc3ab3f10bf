"""Language models are scored for each token, with intervals over sequences."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import saikei as sk
from saikei.errors import InputError
from saikei.scoring.observed import held_out


def sequences() -> tuple[keras.Model, tuple[Any, Any, Any]]:
    keras.utils.set_random_seed(0)
    layers = [keras.Input((6,), dtype="int32"), keras.layers.Embedding(9, 4), keras.layers.Dense(9)]
    model = keras.Sequential(layers)
    model.set_weights([5 * weight for weight in model.get_weights()])
    generator = np.random.default_rng(0)
    tokens = generator.integers(0, 9, (20, 7))
    counts = np.arange(6) < generator.integers(1, 7, (20, 1))
    return model, (tokens[:, :-1], tokens[:, 1:], counts.astype("float32"))


def test_nats_and_perplexity_are_of_the_tokens_that_count() -> None:
    model, (x, y, weights) = sequences()
    logits = np.asarray(model(x), dtype=np.float64)
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    losses = -np.take_along_axis(log_p, y[..., None], -1)[..., 0]
    nats = (losses * weights).sum() / weights.sum()
    score = sk.evaluate(model, (x, y, weights), metric="nats", batch_size=7)
    assert score.value == score.loss == pytest.approx(nats, rel=1e-5)
    # A ratio of sums over sequences: the jackknife has the same error.
    rows, counted = (losses * weights).sum(1), weights.sum(1)
    left = (rows.sum() - rows) / (counted.sum() - counted)
    error = np.sqrt(19 / 20 * ((left - left.mean()) ** 2).sum())
    assert (score.high - score.low) / 2 == pytest.approx(2.093 * error, rel=0.15)
    perplexity = sk.evaluate(model, (x, y, weights), metric="perplexity")
    assert perplexity.value == pytest.approx(np.exp(nats), rel=1e-5)
    assert perplexity.low == pytest.approx(np.exp(score.low), rel=1e-5)
    assert perplexity.n == 20 and not perplexity.greater_is_better
    streamed = tf.data.Dataset.from_tensor_slices((x, y, weights)).batch(6)
    assert sk.evaluate(model, streamed, metric="nats").value == pytest.approx(nats, rel=1e-5)


@pytest.mark.parametrize("metric", ["nats", "perplexity"])
def test_a_search_can_judge_by_tokens(metric: str) -> None:
    model, data = sequences()
    judge = held_out(model, data, metric)
    found, score = judge.score(judge.predict(model)), sk.evaluate(model, data, metric=metric)
    assert found.value == pytest.approx(score.value, rel=1e-5)
    assert found.low < found.value < found.high and not found.greater_is_better


def test_a_search_judges_a_language_model_by_nats_and_a_tagger_by_accuracy() -> None:
    model, data = sequences()
    judge, explicit = held_out(model, data), held_out(model, data, "nats")
    outputs = judge.predict(model)
    assert judge.score(outputs) == explicit.score(outputs)
    worse = [2 * np.asarray(outputs[0])]
    gap = judge.score(outputs).value - judge.score(worse).value
    assert judge.difference(outputs, worse).value == pytest.approx(gap)
    # More is better, so that nats have the other sign.
    assert judge.merit(outputs)[0] == pytest.approx(-judge.score(outputs).value)
    tagger = keras.Sequential([keras.Input((6,)), model.layers[0], keras.layers.Dense(3)])
    tags = held_out(tagger, (data[0], data[1] % 3))
    assert tags.score(tags.predict(tagger)).name == "accuracy"


def test_perplexity_needs_an_output_of_classes() -> None:
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    with pytest.raises(InputError, match="metric='perplexity' is for one output of tokens"):
        sk.evaluate(model, (np.ones((4, 2)), np.arange(4.0)), metric="perplexity")
