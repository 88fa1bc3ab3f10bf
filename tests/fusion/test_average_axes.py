"""An average in logit space, a median, with weights for each class, of calibrated members."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy import special

import saikei as sk
from saikei.errors import FusionError
from saikei.fusion import Average
from saikei.fusion.evidence import gather
from saikei.judging import nested_score
from saikei.scoring import evaluate, infer_task
from saikei.scoring.outputs import read_outputs
from tests.fusion.average_nets import (
    AXES,
    FIRST,
    LAST,
    RNG,
    TABLE,
    TWO_X,
    X,
    labels_of,
    loss_of,
    make_members,
    predict,
    two_outputs,
)


@pytest.fixture(scope="module")
def cases():
    """For each activation members, labels, and the evidence of all rows."""
    made = {}
    for activation in ("softmax", "sigmoid", None):
        members = make_members(activation)
        y = labels_of(members[1])
        made[activation] = members, y, gather(members, (X, y))
    return made


@pytest.mark.sampled
@pytest.mark.parametrize(
    ("name", "activation"),
    [
        *((name, "softmax") for name in AXES),
        *(("all", activation) for activation in ("sigmoid", None)),
        *(
            pytest.param(name, activation, marks=pytest.mark.slow)
            for name in AXES
            for activation in ("sigmoid", None)
            if name != "all"
        ),
    ],
)
def test_the_graph_predicts_what_is_scored(name, activation, cases):
    fusion, (members, y, evidence) = AXES[name], cases[activation]
    fused = fusion(members, (X[FIRST], y[FIRST]))
    combiner = fusion.fit_head(evidence.take(FIRST))
    (scored,) = combiner.predict(evidence.take(LAST).predictions)
    predicted = predict(fused, X[LAST])
    np.testing.assert_allclose(predicted, scored, atol=1e-6, rtol=1e-5)
    assert read_outputs(fused).each[0].activation == (activation or "linear")
    assert infer_task(fused, y).from_logits == (activation is None)
    if activation == "softmax":
        np.testing.assert_allclose(predicted.sum(-1), 1, atol=1e-6)
    json.dumps(combiner.to_dict())


@pytest.mark.parametrize(
    "activation",
    ["softmax", *(pytest.param(other, marks=pytest.mark.slow) for other in ("sigmoid", None))],
)
def test_learned_weights_in_logit_space_are_certified_and_nothing_beats_them(activation):
    members = make_members(activation)
    y = labels_of(members[1])
    made = Average("learn", space="logit").fuse(members, (X, y))
    fitted, fused = made.head.fitted, made.model
    assert fitted.gap <= 1e-4
    assert evaluate(fused, (X, y)).loss == pytest.approx(fitted.loss, rel=1e-4)
    for weights in np.random.default_rng(0).dirichlet([1, 1, 1], 10):
        other = Average(tuple(weights), space="logit")(members)
        assert fitted.loss <= loss_of(other, y) + fitted.gap + 1e-6


def test_greedy_selection_in_logit_space_is_bounded_by_the_learned_weights():
    members = make_members()
    y = labels_of(members[1])
    greedy = Average("greedy", space="logit").fuse(members, (X, y)).head.fitted
    learned = Average("learn", space="logit").fuse(members, (X, y)).head.fitted
    assert learned.loss - learned.gap - 1e-6 <= greedy.losses[-1] <= learned.loss + 0.02
    fused = Average("greedy", space="logit")(members, (X, y))
    assert loss_of(fused, y) == pytest.approx(greedy.losses[-1], abs=1e-5)


def test_dictionaries_of_two_outputs_keep_their_names_and_numbers_stay_numbers():
    members = [two_outputs(seed) for seed in range(3)]
    predicted = [predict(member, TWO_X) for member in members]
    logit = predict(Average((0.2, 0.3, 0.5), space="logit")(members), TWO_X)
    np.testing.assert_allclose(
        logit["size"], np.average([one["size"] for one in predicted], 0, (0.2, 0.3, 0.5)), atol=1e-6
    )
    z = np.average([np.log(one["kind"]) for one in predicted], 0, (0.2, 0.3, 0.5))
    np.testing.assert_allclose(logit["kind"], special.softmax(z, -1), atol=1e-6)
    median = predict(Average(how="median")(members), TWO_X)
    np.testing.assert_allclose(
        median["size"], np.median([one["size"] for one in predicted], 0), atol=1e-6
    )
    tables = (TABLE, ((1.0, 0.0, 0.0), (0.0, 0.5, 0.5)))
    given = predict(Average(tables)(members), TWO_X)
    np.testing.assert_allclose(
        given["size"],
        np.einsum("mnc,cm->nc", [one["size"] for one in predicted], np.array(tables[1])),
        atol=1e-6,
    )


def test_members_that_count_for_no_class_are_left_out():
    members = make_members()
    fused = Average(((0.5, 0.0, 0.5),) * 3)(members)
    assert fused.count_params() == 2 * members[0].count_params()
    shared = predict(Average((0.5, 0.0, 0.5))(members))
    np.testing.assert_allclose(predict(fused), shared, atol=1e-6)


def test_one_class_stays_one():
    for activation in ("softmax", "sigmoid"):
        members = make_members(activation, classes=1)
        y = np.zeros((80, 1), int) if activation == "softmax" else labels_of(members[0])
        for fusion in (Average(space="logit"), Average("learn", per_class=True, calibrate=True)):
            predicted = predict(fusion(members, (X, y)))
            assert predicted.shape == (80, 1)
            if activation == "softmax":
                np.testing.assert_allclose(predicted, 1)


@pytest.mark.parametrize("name", AXES)
def test_it_round_trips_through_json(name):
    value = AXES[name]
    assert Average.from_dict(json.loads(json.dumps(value.to_dict()))) == value


def test_what_fits_more_is_more_complex():
    order = [
        Average(space="logit"),
        Average(calibrate=True),
        Average("learn", per_class=True),
    ]
    assert [one.complexity for one in order] == [1, 2, 3]
    assert Average(how="median").complexity == Average(TABLE).complexity == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"weights": (0.5, 0.5), "how": "median"}, "median takes no weights"),
        ({"weights": "learn", "how": "median"}, "median takes no weights"),
        ({"per_class": True, "how": "median"}, "median takes no weights"),
        ({"how": "geometric"}, "use space='logit'"),
        ({"how": "mode"}, "how='mode' is unknown"),
        ({"space": "odds"}, "space='odds' is unknown"),
        ({"calibrate": "yes"}, "give True or False"),
        ({"calibrate": 1}, "calibrate=1 is unknown"),
        ({"per_class": True}, "needs weights='learn', or a table"),
        ({"weights": (0.5, 0.5), "per_class": True}, "needs weights='learn', or a table"),
        ({"weights": "greedy", "per_class": True}, "Greedy selection counts whole members"),
    ],
)
def test_arguments_that_do_not_fit_get_one_line(arguments, message):
    with pytest.raises(FusionError, match=message) as caught:
        Average(**arguments)
    assert "\n" not in str(caught.value)


def test_members_that_do_not_fit_an_axis_get_one_line():
    with pytest.raises(FusionError, match="space='probability' needs"):
        Average(space="probability")(make_members(None))
    with pytest.raises(FusionError, match="no probabilities to calibrate"):
        Average(calibrate=True)(make_members(None), (X, RNG.normal(size=(80, 3))))
    odd = make_members("sigmoid")
    for member in odd:
        member.compile(loss="mse")
    with pytest.raises(FusionError, match="ends in sigmoid and is compiled for regression"):
        Average("learn", space="logit")(odd, (X, RNG.random((80, 3))))
    assert predict(Average(how="median")(odd)).shape == (80, 3)
    nested_score(Average(space="logit"), odd, (X, RNG.random((80, 3))), 2)
    with pytest.raises(FusionError, match="2 rows of weights are given for the 3 classes"):
        Average(TABLE[:2])(make_members())
    with pytest.raises(FusionError, match="one weight for each member"):
        sk.fusion.Multimodal(weights=TABLE)
