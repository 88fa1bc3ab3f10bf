"""The constant predictions that know only how often each label occurs."""

from __future__ import annotations

import numpy as np
import pytest

from saikei.scoring.labelled import Labelled
from tests.judging.explaining import made_up


@pytest.mark.parametrize(
    ("task", "labels", "expected"),
    [
        (made_up.task(outputs=2, sparse=False), np.array([[1, 0], [1, 0], [0, 1]]), [2 / 3, 1 / 3]),
        (made_up.task("binary", 1), np.array([1, 1, 0]), [2 / 3]),
        (made_up.task("binary", 1, from_logits=True), np.array([1, 1, 0]), [np.log(2)]),
        (made_up.task("regression", 2), np.array([[1, 5], [2, 5], [3, 5]]), [2, 5]),
    ],
)
def test_the_prior_is_the_mean_of_the_labels_as_the_outputs_are(task, labels, expected):
    (prior,) = Labelled.of((task,), (labels,)).prior((np.zeros((3, task.outputs)),))
    np.testing.assert_allclose(prior, [expected] * 3)
