"""`choose` does no harm: what is no better by a standard error loses to what is simpler."""

from __future__ import annotations

import json

import keras
import numpy as np
import pytest
from keras import layers

import saikei as sk
from saikei.errors import FusionError, InputError
from saikei.fusion import Average, BestMember, Stack
from saikei.judging import choose

RNG = np.random.default_rng(1)
X = RNG.normal(size=(400, 4)).astype("float32")


def member(*weights):
    net = keras.Sequential([keras.Input((4,)), layers.Dense(1, activation="sigmoid")])
    net.set_weights([np.array(weights, dtype="float32")[:, None], np.zeros(1)])
    return net


def labels(*weights):
    chance = np.random.default_rng(5).random(400)
    return (1 / (1 + np.exp(-X @ np.array(weights))) > chance).astype(int)


FUSIONS = [Average(), Average("learn"), Stack(folds=3)]


def test_a_fusion_that_is_no_better_than_one_member_loses_to_it():
    members = [member(2, 1, 0, 0), member(1.8, 1.2, 0.3, 0), member(0.5, 0, 0, 1)]
    choice = choose(FUSIONS, members, (X, labels(2, 1, 0, 0)))
    assert choice.fusion == BestMember()
    np.testing.assert_array_equal(choice.model.get_weights()[0], members[0].get_weights()[0])
    assert "BestMember" in choice.reason
    assert len(choice.rivals) == 4


def test_a_fusion_that_is_better_wins_with_a_model_of_all_data():
    # Each member is sure of its own half of the truth; their mean is not.
    members = [member(3, 0, 0, 0), member(0, 3, 0, 0), member(0, 0, 0, 1)]
    y = labels(3, 3, 0, 0)
    choice = choose(FUSIONS, members, (X, y))
    assert isinstance(choice.fusion, Stack)
    assert choice.rivals[0].fusion == choice.fusion
    assert "lowest nested loss" in choice.reason
    expected = Stack(folds=3)(members, (X, y))
    for ours, theirs in zip(choice.model.get_weights(), expected.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    json.dumps(choice.to_dict())
    heading, first, *others = str(choice).splitlines()
    assert "nested accuracy" in heading
    assert first.startswith("Stack(folds=3)")
    assert first.endswith("yes")
    assert not any(line.endswith("yes") for line in others)
    assert others[-1] == choice.reason


def test_of_equally_good_fusions_the_simplest_is_taken():
    members = [member(2, 2, e, -e) for e in (1.2, -1.2)]
    probabilities = np.mean([keras.ops.convert_to_numpy(one(X))[:, 0] for one in members], axis=0)
    y = (probabilities > np.random.default_rng(5).random(400)).astype(int)
    choice = choose([Stack(folds=3), Average("learn"), Average()], members, (X, y))
    assert choice.fusion == Average()
    if choice.rivals[0].fusion != choice.fusion:
        assert "less than one standard error" in choice.reason and "simpler" in choice.reason


def test_the_rule_is_one_standard_error_of_the_paired_difference():
    members = [member(2, 1, 0, 0), member(1, 2, 0, 0)]
    y = labels(2, 2, 0, 0)
    choice = choose(FUSIONS, members, (X, y), seed=3)
    lowest = sk.nested_score(choice.rivals[0].fusion, members, (X, y), seed=3).losses
    for rival in choice.rivals:
        losses = sk.nested_score(rival.fusion, members, (X, y), seed=3).losses
        assert rival.behind == pytest.approx((losses - lowest).mean())
        assert rival.error == pytest.approx((losses - lowest).std(ddof=1) / 20)
        assert rival.as_good == (rival.behind <= 0 or rival.behind < rival.error)
    simplest = min((r for r in choice.rivals if r.as_good), key=lambda r: (r.complexity, r.behind))
    assert choice.fusion == simplest.fusion


def test_nothing_to_choose_from_gets_one_line():
    members, held = [member(1, 0, 0, 0)] * 2, (X, labels(1, 0, 0, 0))
    with pytest.raises(FusionError, match="nothing to choose from"):
        choose([], members, held)
    with pytest.raises(InputError, match="fusions=Average"):
        choose(Average(), members, held)
