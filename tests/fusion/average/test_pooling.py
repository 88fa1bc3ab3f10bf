"""Averages in either space equal those of NumPy, and the same in arrays and in a graph."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers
from scipy import special, stats

from saikei.errors import FusionError
from saikei.fusion.average.pooling import OutputPool, Pool
from saikei.fusion.evidence import MemberOutputs
from saikei.scoring.links import links_of, logits_of

SOME = (0.5, 0.3, 0.2)
TABLE = ((0.5, 0.3, 0.2), (0.0, 0.9, 0.1), (0.2, 0.2, 0.6), (1.0, 0.0, 0.0))


def logits(members=3, rows=7, classes=4, spread=3.0, seed=0):
    shape = (members, rows, classes)
    return np.random.default_rng(seed).normal(scale=spread, size=shape).astype("float32")


def outputs_of(link, z):
    squash = {"softmax": lambda z: special.softmax(z, -1), "sigmoid": special.expit}
    return squash.get(link, lambda z: z)(z)


def predict(pool, parts):
    return keras.ops.convert_to_numpy(pool(list(parts)))


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 10**6), st.floats(0.1, 6), st.lists(st.floats(0.01, 1), min_size=2, max_size=5)
)
def test_the_mean_of_logits_is_the_geometric_mean_of_probabilities_brought_to_sum_1(
    seed, spread, weights
):
    weights = np.array(weights) / np.sum(weights)
    z = logits(len(weights), spread=spread, seed=seed)
    p = special.softmax(z, -1)
    pool = OutputPool("softmax", "logit", "mean", tuple(weights))
    geometric = stats.gmean(p.astype("float64"), axis=0, weights=weights[:, None, None])
    geometric /= geometric.sum(-1, keepdims=True)
    mean = special.softmax(np.average(z, axis=0, weights=weights), -1)
    np.testing.assert_allclose(predict(pool, p), geometric, atol=2e-6)
    np.testing.assert_allclose(predict(pool, p), mean, atol=2e-6)


@pytest.mark.parametrize("count", [2, 3, 4])
@pytest.mark.parametrize("link", ["softmax", "sigmoid", "linear"])
def test_a_median_is_numpys_brought_to_sum_1_after_a_softmax(link, count):
    parts = outputs_of(link, logits(count))
    median = np.median(parts, axis=0)
    if link == "softmax":
        median /= median.sum(-1, keepdims=True)
    pool = OutputPool(link, None, "median", (1 / count,) * count)
    np.testing.assert_allclose(predict(pool, parts), median, atol=1e-6)


def test_a_median_of_logits_is_taken_before_the_softmax():
    z = logits()
    log_p = special.log_softmax(z, -1)
    pool = OutputPool("softmax", "logit", "median", (1 / 3,) * 3)
    expected = special.softmax(np.median(log_p, axis=0), -1)
    np.testing.assert_allclose(predict(pool, special.softmax(z, -1)), expected, atol=1e-6)


def test_a_mean_with_a_table_weighs_each_class_with_its_row_and_is_brought_to_sum_1():
    p = special.softmax(logits(), -1)
    expected = np.einsum("mnc,cm->nc", p, np.array(TABLE))
    assert not np.allclose(expected.sum(-1), 1, atol=1e-2)
    expected /= expected.sum(-1, keepdims=True)
    pool = OutputPool("softmax", None, "mean", TABLE)
    np.testing.assert_allclose(predict(pool, p), expected, atol=1e-6)
    one = OutputPool("sigmoid", None, "mean", TABLE)
    np.testing.assert_allclose(
        predict(one, special.expit(logits())),
        np.einsum("mnc,cm->nc", special.expit(logits()), np.array(TABLE)),
        atol=1e-6,
    )


@pytest.mark.parametrize("link", ["softmax", "sigmoid", "linear"])
def test_temperatures_divide_logits_before_anything_is_averaged(link):
    z, hot = logits(), np.array([0.5, 1.0, 3.0])
    pool = OutputPool(link, None, "mean", SOME, tuple(hot))
    each = outputs_of(link, z / hot[:, None, None])
    expected = np.average(each, axis=0, weights=SOME)
    np.testing.assert_allclose(predict(pool, outputs_of(link, z)), expected, atol=2e-6)


@pytest.mark.parametrize("temperatures", [None, (0.7, 1.0, 2.5)])
@pytest.mark.parametrize(
    ("how", "weights"),
    [("mean", SOME), ("mean", (0.5, 0.0, 0.5)), ("mean", TABLE), ("median", SOME)],
)
@pytest.mark.parametrize("space", [None, "logit"])
@pytest.mark.parametrize("link", ["softmax", "sigmoid", "linear"])
def test_arrays_and_graph_give_the_same(link, space, how, weights, temperatures):
    parts = outputs_of(link, logits())
    pool = Pool((OutputPool(link, space, how, weights, temperatures),))
    inputs = [keras.Input((4,), name=f"x{number}") for number in range(3)]
    graph = keras.Model(inputs, pool.connect(MemberOutputs(tuple((one,) for one in inputs)))[0])
    outputs = keras.ops.convert_to_numpy(graph(list(parts)))
    (fitted,) = pool.predict(MemberOutputs(tuple((one,) for one in parts)))
    np.testing.assert_allclose(outputs, fitted, atol=1e-6)
    if link == "softmax":
        np.testing.assert_allclose(fitted.sum(-1), 1, atol=1e-6)


@pytest.mark.parametrize("link", ["softmax", "sigmoid"])
def test_members_that_are_certain_make_no_nan_in_logit_space(link):
    certain = np.array([[[1.0, 0.0]], [[0.0, 1.0]], [[0.0, 1.0]]], dtype="float32")
    pool = OutputPool(link, "logit", "mean", SOME, (0.5, 1.0, 2.0))
    assert np.isfinite(predict(pool, certain)).all()


@pytest.mark.parametrize("link", ["softmax", "sigmoid"])
def test_logits_of_probabilities_lead_back_to_them(link):
    p = outputs_of(link, logits(spread=4.0))
    np.testing.assert_allclose(outputs_of(link, np.asarray(logits_of(p, link))), p, atol=1e-6)


def test_members_that_no_output_needs_are_left_out():
    both = Pool(
        (
            OutputPool("softmax", None, "mean", (0.0, 0.4, 0.6), (1.0, 2.0, 3.0)),
            OutputPool("linear", None, "mean", ((0.0, 1.0, 0.0), (0.0, 1.0, 0.0))),
        )
    )
    assert both.used == (1, 2)
    left = both.of(both.used)
    assert left.each[0].weights == (0.4, 0.6)
    assert left.each[0].temperatures == (2.0, 3.0)
    assert left.each[1].weights == ((1.0, 0.0), (1.0, 0.0))


def test_spaces_that_do_not_fit_are_refused():
    with pytest.raises(FusionError, match="space='probability' needs members that end in softmax"):
        OutputPool("linear", "probability", "mean", SOME)
    with pytest.raises(FusionError, match="log_sigmoid"):
        links_of(["softmax", "log_sigmoid"])


def test_weights_for_each_class_ask_for_classes_on_the_last_axis():
    before = keras.config.image_data_format()
    keras.config.set_image_data_format("channels_first")
    try:
        with pytest.raises(FusionError, match="channels_last"):
            OutputPool("softmax", None, "mean", TABLE)
    finally:
        keras.config.set_image_data_format(before)


def test_sequences_and_maps_are_averaged_position_by_position():
    p = special.softmax(logits(rows=30), -1).reshape(3, 2, 5, 3, 4)
    pool = OutputPool("softmax", "logit", "mean", TABLE)
    flat = predict(pool, p.reshape(3, 30, 4)).reshape(2, 5, 3, 4)
    np.testing.assert_allclose(predict(pool, p), flat, atol=1e-6)
    inputs = [keras.Input((5, 3, 4)) for _ in range(3)]
    graph = keras.Model(inputs, layers.Identity()(pool(inputs)))
    np.testing.assert_allclose(keras.ops.convert_to_numpy(graph(list(p))), flat, atol=1e-6)
