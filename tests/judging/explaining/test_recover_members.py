"""The members of a fused model are found in it, or it is refused by name."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers

import saikei as sk
from saikei.errors import DataError, FusionError
from saikei.fusion import Average, Boost, Cascade, Chain, Soup, Stack
from saikei.judging import explain
from tests.judging.explaining.nets import (
    CLASSES,
    HELD_OUT,
    MEMBERS,
    data_of,
    net,
    score_is_that_of,
    sums_up,
    values,
)

FUSED = {
    "equal": lambda: Average()(MEMBERS),
    "weights": lambda: Average((0.5, 0.2, 0.3))(MEMBERS),
    "stack": lambda: Stack(folds=3)(MEMBERS, data_of(90, 2)),
    "stacked stack": lambda: Stack(folds=3, below=(Stack(folds=3), Average("learn")))(
        MEMBERS, data_of(90, 2)
    ),
    "stacked features": lambda: Stack(on="features", folds=3)(MEMBERS, data_of(90, 2)),
    "stack beside the input": lambda: Stack(passthrough=True, folds=3)(MEMBERS, data_of(90, 2)),
    "cascade": lambda: Cascade(thresholds=(0.6, 0.7))(MEMBERS, data_of(90, 2)),
}


@pytest.mark.long
@pytest.mark.parametrize("fusion", FUSED)
def test_a_fused_model_is_explained_as_it_was_saved(fusion, tmp_path):
    fused = FUSED[fusion]()
    before = [np.array(weight) for weight in fused.get_weights()]
    explained = explain(fused, HELD_OUT)
    assert len(explained.members) == 3
    assert sums_up(explained)
    assert score_is_that_of(explained, sk.evaluate(fused, HELD_OUT))
    for member, own in zip(explained.members, MEMBERS, strict=True):
        assert member.alone.loss == pytest.approx(sk.evaluate(own, HELD_OUT).loss, abs=1e-5)
    for one, other in zip(before, fused.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    fused.save(tmp_path / "fused.keras")
    loaded = keras.models.load_model(tmp_path / "fused.keras")
    np.testing.assert_allclose(values(explain(loaded, HELD_OUT)), values(explained), atol=1e-6)


@pytest.mark.parametrize("head", ["softmax", "linear"])
def test_a_mean_in_logit_space_is_found_behind_its_activation(head):
    members = [net(seed, head=head) for seed in range(3)]
    average = Average((0.5, 0.2, 0.3), space="logit")
    fused, apart = explain(average(members), HELD_OUT), explain(members, HELD_OUT, fusion=average)
    np.testing.assert_allclose(values(fused), values(apart), atol=1e-4)
    assert score_is_that_of(fused, sk.evaluate(average(members), HELD_OUT))
    assert fused.absence == apart.absence
    for one, other in zip(fused.members, apart.members, strict=True):
        assert one.alone.loss == pytest.approx(other.alone.loss, abs=1e-4)


@pytest.mark.parametrize("head", ["softmax", "linear"])
def test_weights_for_each_class_and_medians_read_means_of_the_absent(head):
    x, y = HELD_OUT
    labels = x[:, :CLASSES] if head == "linear" else y
    members = [net(seed, head=head) for seed in range(3)]
    for average in (
        Average(((0.5, 0.2, 0.3), (0.2, 0.2, 0.6), (0.1, 0.2, 0.7)), per_class=True),
        Average(how="median"),
    ):
        fused = average(members)
        explained = explain(fused, (x, labels))
        assert sums_up(explained)
        assert "mean prediction" in explained.absence
        assert score_is_that_of(explained, sk.evaluate(fused, (x, labels)))


def test_members_that_share_frozen_layers_are_found():
    shared = layers.Dense(6, activation="relu")
    shared.trainable = False
    members = []
    for seed in range(3):
        keras.utils.set_random_seed(seed)
        inputs = keras.Input((4,))
        members.append(keras.Model(inputs, layers.Dense(3, activation="softmax")(shared(inputs))))
    fused = Average((0.5, 0.2, 0.3))(members)
    explained = explain(fused, HELD_OUT)
    apart = explain(members, HELD_OUT, fusion=Average((0.5, 0.2, 0.3)))
    np.testing.assert_allclose(values(explained), values(apart), atol=1e-6)


def test_models_without_members_side_by_side_are_explained_as_one_model():
    soup = Soup(check=False)([MEMBERS[0], MEMBERS[0]])
    chain = Chain(training=None)(
        [keras.Sequential([keras.Input((4,)), layers.Dense(4)]), MEMBERS[0]]
    )
    for model in (MEMBERS[0], soup, chain):
        assert explain(model, HELD_OUT).models == (model.name,)
    for fusion in (Soup(), Boost()):
        with pytest.raises(FusionError, match=f"{type(fusion).__name__} .* fuse the members"):
            explain(MEMBERS, HELD_OUT, fusion=fusion)


@pytest.mark.parametrize("head", ["linear", "softmax"])
def test_members_of_a_series_are_refused_since_none_answers_alone(head):
    x, y = data_of(60, 3)
    labels = x[:, :CLASSES] if head == "linear" else y
    weak = [net(seed, -1.0, head) for seed in range(2)]
    series = Boost(rounds=2, epochs=6, learning_rate=0.05)(weak, (x, labels))
    with pytest.raises(FusionError, match="'boost' sums its members"):
        explain(series, (x, labels), allow_in_sample=True)


def test_a_stack_of_logits_scores_its_members_as_logits():
    members = [net(seed, head="linear") for seed in range(2)]
    explained = explain(Stack(folds=3)(members, data_of(90, 2)), HELD_OUT)
    for member, own in zip(explained.members, members, strict=True):
        assert member.alone.loss == pytest.approx(sk.evaluate(own, HELD_OUT).loss, abs=1e-5)


def test_a_fused_model_that_predicts_nan_is_refused_by_the_members_number():
    fused = Average()([MEMBERS[0], net(9)])
    fused.get_layer("member_2").weights[-1].assign([np.nan] * CLASSES)
    with pytest.raises(DataError, match="'member_2' predicts NaN"):
        explain(fused, HELD_OUT)
