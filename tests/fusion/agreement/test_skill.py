"""Skill is what is known of all that can be, whatever the temperature."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import special

from saikei.fusion.agreement.skill import rightness, skills, tempered_skill
from saikei.scoring.labelled import Labelled
from tests.judging.explaining import made_up


def outputs_and_labels(kind, seed=0, rows=2000):
    """Logits that are sure as they should be, and labels drawn from them."""
    generator = np.random.default_rng(seed)
    logits = 2 * generator.normal(
        size=(rows, {"binary": 1, "multilabel": 2, "multiclass": 3}[kind])
    )
    if kind == "multiclass":
        y = (special.softmax(logits, axis=-1).cumsum(-1) < generator.random((rows, 1))).sum(-1)
    else:
        y = (special.expit(logits) > generator.random(logits.shape)).astype(int)
    return logits, y


@pytest.mark.parametrize("from_logits", [True, False])
@pytest.mark.parametrize("kind", ["binary", "multilabel", "multiclass"])
def test_the_temperature_makes_no_difference(kind, from_logits):
    logits, y = outputs_and_labels(kind)
    task = made_up.task(kind, logits.shape[1], from_logits=from_logits)
    link = special.expit if kind != "multiclass" else lambda z: special.softmax(z, axis=-1)
    each = [z if from_logits else link(z) for z in (logits, 3 * logits, logits / 3)]
    known = [tempered_skill(task, y, one) for one in each]
    # Probabilities near 0 and 1 are clipped.
    np.testing.assert_allclose(known, known[0], atol=1e-3)
    # What was drawn from them suits them as they are.
    assert known[0] == pytest.approx(skills(Labelled.of([task], [y]), [each[0]]).mean(), abs=0.01)
    assert skills(Labelled.of([task], [y]), [each[1]]).mean() < known[0] - 0.05


def test_predicting_label_frequencies_has_no_skill():
    _, y = outputs_and_labels("multiclass")
    share = np.bincount(y) / len(y)
    task = made_up.task(outputs=3)
    assert skills(Labelled.of([task], [y]), [np.tile(share, (len(y), 1))]).mean() == pytest.approx(
        0, abs=1e-6
    )


def test_regression_has_skill_and_no_share_that_is_right():
    (predicted,), y = made_up.numbers(members=1, rows=500)
    task = made_up.task("regression", 2)
    left = np.mean((predicted - y) ** 2) / np.mean((y - y.mean(axis=0)) ** 2)
    assert tempered_skill(task, y, predicted) == pytest.approx(1 - left)
    assert rightness([task], [y], [predicted]) is None
