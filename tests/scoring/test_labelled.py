"""`Labelled`: scores of predictions, alone and against each other, and of constant ones."""

from __future__ import annotations

import numpy as np
import pytest

from saikei.errors import DataError
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


def test_several_outputs_are_scored_by_their_summed_loss_and_compared_row_by_row():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 60), rng.normal(size=(60, 1))
    tasks = made_up.task(outputs=3), made_up.task("regression", 1)
    labelled = Labelled.of(tasks, y)
    good = np.eye(3)[y[0]] * 0.7 + 0.1, y[1] + 0.1
    bad = np.full((60, 3), 1 / 3), y[1] + 0.5
    losses = -np.log(0.8) + 0.01, np.log(3) + 0.25
    np.testing.assert_allclose(labelled.losses(good), losses[0], rtol=1e-9)
    assert labelled.score(bad).value == pytest.approx(losses[1])
    assert labelled.difference(good, bad).value == pytest.approx(losses[0] - losses[1])
    some = labelled.take(slice(0, 7))
    assert len(some) == 7 and some.loss([part[:7] for part in bad]) == pytest.approx(losses[1])


def test_labels_take_the_shape_of_predictions_and_have_to_fit_them():
    task = made_up.task(outputs=3)
    given = Labelled.of([task], [np.array([[0], [2]])], [np.ones((2, 3)) / 3])
    assert given.labels[0].shape == (2,)
    with pytest.raises(DataError, match="Labels run from 0 to 3, but there are 3 classes"):
        Labelled.of([task], [np.array([0, 3])], [np.ones((2, 3)) / 3])
