"""Members side by side: what they agree in, where they are wrong together, how sure they are."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy import special
from sklearn.calibration import calibration_curve
from sklearn.metrics import recall_score

from saikei.judging.explaining.comparison import compare_outputs, reliability
from tests.judging.explaining import made_up


def test_agreement_and_errors_of_classes_are_those_of_the_chosen_classes():
    members, y = made_up.classes(rows=200)
    fused = np.mean(members, axis=0)
    view = compare_outputs(made_up.task(), y, members, fused)
    chosen = [part.argmax(axis=1) for part in members]
    wrong = [(one != y).astype(float) for one in chosen]
    for i in range(4):
        for j in range(4):
            assert view.agreement[i, j] == np.mean(chosen[i] == chosen[j])
    np.testing.assert_allclose(view.error_correlation, np.corrcoef(wrong), atol=1e-12)


def test_strength_is_the_recall_of_each_class_the_fusions_last():
    members, y = made_up.classes(rows=200)
    fused = np.mean(members, axis=0)
    view = compare_outputs(made_up.task(), y, members, fused)
    for row, part in zip(view.strength, [*members, fused], strict=True):
        np.testing.assert_allclose(row, recall_score(y, part.argmax(axis=1), average=None))
    assert view.counts.tolist() == np.bincount(y).tolist()
    assert view.strongest == tuple(np.argmax(view.strength[:-1], axis=0))


def test_a_class_that_does_not_occur_has_no_strength_and_is_null_in_json():
    members, y = made_up.classes()
    view = compare_outputs(made_up.task(), np.where(y == 1, 0, y), members, members[0])
    assert np.isnan(view.strength[:, 1]).all()
    assert view.strongest[1] is None
    record = json.loads(json.dumps(view.to_dict(), allow_nan=False))
    assert [row[1] for row in record["strength"]] == [None] * 5


def test_a_member_that_is_always_right_has_no_correlation_of_errors():
    members, y = made_up.classes()
    view = compare_outputs(made_up.task(), y, [np.eye(3)[y], *members], members[0])
    assert np.isnan(view.error_correlation[0]).all()
    assert view.error_correlation[1, 1] == pytest.approx(1.0)


def test_numbers_correlate_in_predictions_and_in_residuals():
    members, y = made_up.numbers(rows=100)
    view = compare_outputs(made_up.task("regression", 2), y, members, np.mean(members, axis=0))
    residuals = [(part - y).reshape(-1) for part in members]
    np.testing.assert_allclose(view.error_correlation, np.corrcoef(residuals), atol=1e-12)
    assert (view.agreement > 0.2).all()
    np.testing.assert_allclose(view.strength[0], ((members[0] - y) ** 2).mean(axis=0))
    assert view.calibration == ()
    assert view.strongest == tuple(np.argmin(view.strength[:-1], axis=0))


def test_two_classes_from_one_number_have_a_strength_each():
    members, y = made_up.labels(count=1, rows=100)
    view = compare_outputs(made_up.task("binary", 1), y[:, 0], members, members[0])
    expected = recall_score(y[:, 0], members[0][:, 0] > 0.5, average=None, labels=[0, 1])
    np.testing.assert_allclose(view.strength[0], expected)
    assert view.counts.tolist() == [int((y == 0).sum()), int((y == 1).sum())]


def test_each_of_several_labels_has_its_recall():
    members, y = made_up.labels(rows=100)
    view = compare_outputs(made_up.task("multilabel"), y, members, members[0])
    np.testing.assert_allclose(view.strength[0], recall_score(y, members[0] > 0.5, average=None))
    assert view.agreement[0, 1] == np.mean((members[0] > 0.5) == (members[1] > 0.5))


@pytest.mark.parametrize("kind", ["multiclass", "binary"])
def test_logits_compare_as_their_probabilities_do(kind):
    binary = kind == "binary"
    members, y = made_up.labels(count=1) if binary else made_up.classes()
    logits = [special.logit(part) if binary else np.log(part) for part in members]
    outputs = 1 if binary else 3
    one = compare_outputs(made_up.task(kind, outputs), y, members, members[0])
    other = compare_outputs(made_up.task(kind, outputs, from_logits=True), y, logits, logits[0])
    np.testing.assert_allclose(one.agreement, other.agreement)
    np.testing.assert_allclose(one.strength, other.strength)
    assert one.calibration[1].error == pytest.approx(other.calibration[1].error)


def test_the_calibration_curve_is_that_of_scikit_learn():
    generator = np.random.default_rng(0)
    p = generator.uniform(size=500) ** 2
    happened = generator.uniform(size=500) < p
    curve = reliability(p, happened)
    frequency, confidence = calibration_curve(happened, p, n_bins=10)
    np.testing.assert_allclose(curve.frequency, frequency)
    np.testing.assert_allclose(curve.confidence, confidence)
    assert curve.counts.sum() == 500


def test_the_calibration_error_is_the_mean_distance():
    # Half predict 0.9 and are right in 3 of 4, half predict 0.6 and always are.
    p = np.array([0.9] * 4 + [0.6] * 4)
    happened = np.array([1, 1, 1, 0, 1, 1, 1, 1])
    assert reliability(p, happened).error == pytest.approx((0.15 + 0.4) / 2)
    assert reliability(np.array([0.0, 1.0]), np.array([0, 1])).error == 0.0
