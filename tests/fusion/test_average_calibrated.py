"""Members that are too sure are cooled before they are averaged, on rows that none has seen."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy import special

import saikei as sk
from saikei.errors import FusionError
from saikei.fusion import Average, CalibratedFit
from saikei.graph import copy_model
from saikei.judging import nested_score
from saikei.scoring import evaluate, infer_task
from saikei.scoring.outputs import read_outputs
from tests.fusion.average_nets import (
    AXES,
    FIRST,
    LAST,
    TWO_X,
    TWO_Y,
    X,
    labels_of,
    loss_of,
    make_members,
    predict,
    two_outputs,
)


def test_the_nested_score_is_that_of_models_which_are_fitted_fold_by_fold():
    members = make_members()
    y = labels_of(members[1])
    rows = np.arange(80)
    nested = nested_score(AXES["all"], members, (X, y), [(rows[FIRST], rows[LAST])])
    fused = AXES["all"](members, (X[FIRST], y[FIRST]))
    predicted = fused.predict_on_batch(X[LAST])
    np.testing.assert_allclose(nested.outputs[0], predicted, atol=1e-6)


def test_temperatures_undo_what_made_members_too_sure():
    members = make_members()
    y = labels_of(members[0], np.tile(X, (30, 1)))
    x = np.tile(X, (30, 1))
    sure = copy_model(members[0])
    sure.layers[-1].kernel.assign(4 * sure.layers[-1].kernel)
    sure.layers[-1].bias.assign(4 * sure.layers[-1].bias)
    fit = Average(calibrate=True).fuse([members[0], sure], (x, y)).head.fitted
    assert isinstance(fit, CalibratedFit)
    first, second = fit.temperatures[0]
    assert first.value == pytest.approx(1, abs=0.1)
    assert second.value == pytest.approx(4 * first.value, rel=1e-3)
    assert second.loss == pytest.approx(first.loss, abs=1e-4)
    assert second.loss < second.loss_before - 0.05
    fused = Average(calibrate=True)([members[0], sure], (x, y))
    assert loss_of(fused, y, x) == pytest.approx(first.loss, abs=1e-4)


def test_weights_are_fitted_after_the_temperatures():
    members = make_members(sharp=12.0)
    y = labels_of(make_members()[1])
    fit = Average("learn", calibrate=True).fuse(members, (X, y)).head.fitted
    hot = [one.value for one in fit.temperatures[0]]
    cooled = [
        special.softmax(np.log(np.maximum(predict(m), 1e-30)) / t, -1)
        for m, t in zip(members, hot, strict=True)
    ]
    by_hand = sk.fusion.fit_weights(infer_task(members[0], y), cooled, y)
    np.testing.assert_allclose(fit.weights.values, by_hand.values, atol=1e-3)
    assert fit.weights.loss == pytest.approx(by_hand.loss, abs=1e-5)
    assert fit.weights.loss <= Average("learn").fuse(members, (X, y)).head.fitted.loss
    record = json.loads(json.dumps(fit.to_dict()))
    assert [one["value"] for one in record["temperatures"][0]] == hot
    assert record["values"] == list(fit.weights.values)


def test_on_labels_of_noise_the_nested_score_sees_through_a_calibrated_fit():
    members, y = make_members(), np.random.default_rng(5).integers(0, 3, 80)
    fusion = Average("learn", space="logit", per_class=True, calibrate=True)
    fitted = fusion.fuse(members, (X, y)).head.fitted.weights.loss
    assert nested_score(fusion, members, (X, y)).score.loss > fitted


def test_two_outputs_are_calibrated_and_weighed_each_for_itself():
    members = [two_outputs(seed) for seed in range(3)]
    fusion = Average("learn", per_class=True, calibrate=True)
    fit = fusion.fuse(members, (TWO_X, TWO_Y)).head.fitted
    assert fit.temperatures[1] is None
    assert len(fit.temperatures[0]) == 3
    assert [np.shape(table) for table in fit.weights.values] == [(3, 3), (2, 3)]
    fused = fusion(members, (TWO_X, TWO_Y))
    assert evaluate(fused, (TWO_X, TWO_Y)).loss == pytest.approx(fit.weights.loss, rel=1e-3)
    assert [one.activation for one in read_outputs(fused).each] == ["softmax", "linear"]
    again = Average(fit.weights.values)
    assert again.per_class
    json.dumps(fit.to_dict())


def test_rows_that_a_member_was_trained_on_are_refused_for_temperatures_too():
    members = make_members()
    y = labels_of(members[1])
    sk.declare_training_rows(members[2], (X[:7], y[:7]))
    for fusion in (Average(calibrate=True), Average(how="median", calibrate=True)):
        with pytest.raises(FusionError, match="Member 3 .* 7 of these 80 rows"):
            fusion(members, (X, y))
        fusion(members, (X, y), allow_in_sample=True)
    with pytest.raises(FusionError, match="needs held-out data"):
        Average(calibrate=True)(members)


def test_a_fused_model_counts_as_trained_on_the_rows_of_its_temperatures():
    members = make_members()
    y = labels_of(members[1])
    fused = Average(calibrate=True)(members, (X, y))
    with pytest.raises(FusionError, match="80 of these 80 rows"):
        Average("learn")([fused, members[0]], (X, y))
