"""`Average` gives one plain model that predicts the mean of its members."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers

from saikei.costs import profile
from saikei.errors import DataError, FusionError
from saikei.fusion import Average
from saikei.scoring import evaluate, infer_task
from saikei.training import fit


def classifier(seed, width=4, activation="softmax", classes=3):
    keras.utils.set_random_seed(seed)
    return keras.Sequential(
        [
            keras.Input((6,)),
            layers.Dense(width, activation="relu"),
            layers.Dense(classes, activation=activation),
        ],
        name="net",
    )


def two_inputs_two_outputs(seed):
    keras.utils.set_random_seed(seed)
    a, b = keras.Input((3,), name="a"), keras.Input((2,), name="b")
    joined = layers.Dense(5, activation="relu")(layers.Concatenate()([a, b]))
    return keras.Model(
        {"a": a, "b": b},
        {
            "kind": layers.Dense(3, activation="softmax", name="kind")(joined),
            "size": layers.Dense(1, name="size")(joined),
        },
    )


@pytest.fixture
def x():
    return np.random.default_rng(0).normal(size=(50, 6)).astype("float32")


def predict(model, x):
    """The model's outputs, without the price of tracing a predict function."""
    x = keras.tree.map_structure(lambda part: np.asarray(part, "float32"), x)
    return keras.tree.map_structure(keras.ops.convert_to_numpy, model(x, training=False))


def labels_by(model, x):
    """Labels drawn from a model's predictions."""
    p = predict(model, x)
    rng = np.random.default_rng(1)
    return np.array([rng.choice(p.shape[1], p=row / row.sum()) for row in p])


@pytest.mark.sampled
@pytest.mark.parametrize("weights", [None, (0.2, 0.5, 0.3), (0.25, 0.75, 0.0), (0.0, 1.0, 0.0)])
@pytest.mark.parametrize("activation", ["softmax", "sigmoid", None])
def test_the_fused_model_predicts_the_weighted_mean(weights, activation, x):
    members = [classifier(seed, 3 + seed, activation) for seed in range(3)]
    fused = Average(weights)(members)
    predicted = [predict(member, x) for member in members]
    mean = np.average(predicted, axis=0, weights=weights)
    assert np.allclose(predict(fused, x), mean, atol=1e-6)


def test_named_inputs_and_outputs_stay_named():
    members = [two_inputs_two_outputs(seed) for seed in range(2)]
    rng = np.random.default_rng(0)
    x = {"a": rng.normal(size=(9, 3)), "b": rng.normal(size=(9, 2))}
    for weights in (None, (0.25, 0.75)):
        predicted = predict(Average(weights)(members), x)
        assert set(predicted) == {"kind", "size"}
        for name in predicted:
            parts = [predict(member, x)[name] for member in members]
            assert np.allclose(
                predicted[name], np.average(parts, axis=0, weights=weights), atol=1e-6
            )


def test_learned_weights_of_two_outputs_serve_both():
    members = [two_inputs_two_outputs(seed) for seed in range(3)]
    rng = np.random.default_rng(0)
    x = {"a": rng.normal(size=(40, 3)), "b": rng.normal(size=(40, 2))}
    y = {"kind": rng.integers(0, 3, 40), "size": rng.normal(size=40)}
    fitted = Average("learn").fuse(members, (x, y)).head.fitted
    assert sum(fitted.values) == pytest.approx(1)
    assert fitted.gap < 1e-6
    fused = Average("learn")(members, (x, y))
    assert evaluate(fused, (x, y)).loss == pytest.approx(fitted.loss, rel=1e-4)


def test_learned_weights_find_the_better_member(x):
    members = [classifier(seed) for seed in range(3)]
    fused = Average("learn")(members, (x, labels_by(members[1], x)))
    y = labels_by(members[1], x)
    equal = Average()(members)
    assert evaluate(fused, (x, y)).loss <= evaluate(equal, (x, y)).loss + 1e-6
    assert evaluate(fused, (x, y)).loss <= evaluate(members[1], (x, y)).loss + 1e-6


def test_a_dataset_that_comes_in_another_order_each_time_serves_as_data(x):
    members = [classifier(seed) for seed in range(3)]
    y = labels_by(members[1], x)

    class Shuffled(keras.utils.PyDataset):
        def __init__(self):
            super().__init__()
            self.rng = np.random.default_rng(0)

        def __len__(self):
            return 5

        def __getitem__(self, index):
            rows = slice(10 * index, 10 * index + 10)
            order = self.rng.permutation(10)
            return x[rows][order], y[rows][order]

    assert Average("learn").fuse(members, Shuffled()).head.fitted.values == pytest.approx(
        Average("learn").fuse(members, (x, y)).head.fitted.values, abs=1e-5
    )


@pytest.mark.parametrize("weights", [None, (0.5, 0.5), "learn"])
def test_members_are_not_changed(weights, x):
    members = [classifier(seed) for seed in range(2)]
    members[0].layers[0].trainable = False
    before = [[w.tobytes() for w in member.get_weights()] for member in members]
    flags = [[layer.trainable for layer in member.layers] for member in members]
    fused = Average(weights)(members, (x, labels_by(members[0], x)))
    fit(fused, (x, labels_by(members[1], x)), epochs=1, learning_rate=1e-3, progress=False)
    assert before == [[w.tobytes() for w in member.get_weights()] for member in members]
    assert flags == [[layer.trainable for layer in member.layers] for member in members]


def test_one_member_given_twice_is_itself(x):
    member = classifier(0)
    fused = Average()([member, member])
    assert np.allclose(predict(fused, x), predict(member, x), atol=1e-6)
    learned = Average("learn")([member, member], (x, labels_by(member, x)))
    assert np.allclose(predict(learned, x), predict(member, x), atol=1e-6)


@pytest.mark.parametrize("weights", [None, (0.3, 0.7)])
def test_a_fusion_of_classifiers_is_a_classifier_that_can_be_fused_again(weights, x):
    a, b = classifier(0), classifier(1)
    fused = Average(weights)([a, b])
    assert infer_task(fused, np.zeros(4, int)).kind == "multiclass"
    assert not infer_task(fused, np.zeros(4, int)).from_logits
    again = Average()([fused, a])
    mean = (predict(fused, x) + predict(a, x)) / 2
    assert np.allclose(predict(again, x), mean, atol=1e-6)


def test_a_fusion_costs_what_its_members_cost():
    members = [classifier(0, 4), classifier(1, 8)]
    costs = [profile(member, latency=False) for member in members]
    fused = profile(Average()(members), latency=False)
    assert fused.params == sum(cost.params for cost in costs)
    assert fused.macs == sum(cost.macs for cost in costs)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ((0.5, 0.4), "sum to 0.9"),
        ((1.5, -0.5), "at least 0"),
        ((float("nan"), 1.0), "finite"),
        (("a", "b"), "no numbers"),
        ("best", "'best' is unknown"),
    ],
)
def test_weights_that_are_none_get_one_line(weights, message):
    with pytest.raises(FusionError, match=message) as caught:
        Average(weights)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (lambda: classifier(1, activation=None), "end in softmax and linear"),
        (lambda: classifier(1, classes=4), r"outputs \(None, 3\) and \(None, 4\)"),
        (lambda: two_inputs_two_outputs(1), "take"),
        (
            lambda: keras.Sequential([keras.Input((7,)), layers.Dense(3, activation="softmax")]),
            r"inputs \(None, 6\) float32 and \(None, 7\)",
        ),
    ],
)
def test_members_that_do_not_fit_are_named(other, message):
    with pytest.raises(FusionError, match=message) as caught:
        Average()([classifier(0), other()])
    assert "Member 1 ('net') and member 2" in str(caught.value)


def test_too_few_members_too_few_weights_and_no_data_get_one_line(x):
    member = classifier(0)
    with pytest.raises(FusionError, match="at least two members, got 1"):
        Average()([member])
    with pytest.raises(FusionError, match="got 1"):
        Average()(member)
    with pytest.raises(FusionError, match="3 weights are given for 2 members"):
        Average((0.2, 0.3, 0.5))([member, member])
    with pytest.raises(FusionError, match="needs held-out data"):
        Average("learn")([member, member])
    with pytest.raises(DataError, match="Labels"):
        Average("learn")([member, member], (x, np.zeros((50, 5))))
