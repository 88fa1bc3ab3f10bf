"""What a fusion predicts when members are absent."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from saikei.fusion.evidence import MemberOutputs
from saikei.judging.explaining.coalitions import (
    CascadeCoalitions,
    ImputedCoalitions,
    MeanCoalitions,
)
from saikei.models import Exits
from saikei.scoring.labelled import Labelled
from tests.judging.explaining import made_up

MEMBERS, Y = made_up.classes(members=3)
PREDICTIONS = MemberOutputs(tuple((part,) for part in MEMBERS))
PRIOR = Labelled.of((made_up.task(),), (Y,)).prior((MEMBERS[0],))


def cascade(exits, members):
    """Row by row: the first member that is sure of it, or the last."""
    rows = []
    for row in range(len(members[0])):
        seen = [part[row : row + 1] for part in members]
        stage = 1
        while stage < len(seen) and not exits.leaves(seen[:stage])[0]:
            stage += 1
        rows.append(exits.output(seen[:stage])[0])
    return np.array(rows)


@pytest.mark.parametrize("confidence", ["max_probability", "margin", "entropy", "agreement"])
@pytest.mark.parametrize("combine", ["last", "average"])
def test_rows_go_past_members_of_a_cascade_that_are_absent(confidence, combine):
    exits = Exits((0.5, 0.4), confidence, combine)
    coalitions = CascadeCoalitions(PREDICTIONS, exits, PRIOR)
    for used in ([0], [2], [0, 1], [0, 2], [1, 2], [0, 1, 2]):
        present = np.isin(np.arange(3), used)
        thresholds = tuple(exits.thresholds[i] for i in used[:-1])
        expected = cascade(replace(exits, thresholds=thresholds), [MEMBERS[i] for i in used])
        np.testing.assert_allclose(coalitions.outputs(present)[0], expected, atol=1e-12)
    assert coalitions.outputs(np.zeros(3, bool)) is PRIOR


def test_what_is_absent_counts_as_its_mean():
    given = []

    def fusion(predictions):
        given.append(predictions)
        return predictions.outputs[0]

    features = tuple((part[:, :1],) for part in MEMBERS)
    predictions = MemberOutputs(PREDICTIONS.outputs, features, raw=(MEMBERS[0],))
    ImputedCoalitions.of(predictions, fusion).outputs(np.array([True, False, True]))
    (imputed,) = given
    assert imputed.outputs[0][0] is MEMBERS[0]
    assert imputed.raw[0] is MEMBERS[0]
    np.testing.assert_allclose(imputed.outputs[1][0], np.tile(MEMBERS[1].mean(axis=0), (60, 1)))
    np.testing.assert_allclose(imputed.features[1][0], features[1][0].mean())
    assert imputed.features[2][0] is features[2][0]


def test_a_mean_of_nobody_that_counts_is_the_prior():
    coalitions = MeanCoalitions(PREDICTIONS, (0.5, 0.5, 0.0), PRIOR)
    assert coalitions.outputs(np.array([False, False, True])) is PRIOR
    np.testing.assert_allclose(PRIOR[0][0], np.bincount(Y) / len(Y))
    np.testing.assert_allclose(coalitions.outputs(np.array([True, False, True]))[0], MEMBERS[0])
