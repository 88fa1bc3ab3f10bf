"""The divergence of outputs from those of the original, in one unit for all tasks."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
from scipy import special, stats

from saikei.errors import DataError
from saikei.scoring import Task
from saikei.scoring.labels import Labels, count
from saikei.search.library import divergence

Kind = Literal["binary", "multiclass", "multilabel", "regression"]


def _task(kind: Kind, from_logits: bool = False, outputs: int = 3) -> Task:
    return Task(kind, None, "accuracy", from_logits, sparse=True, outputs=outputs)


@pytest.fixture
def logits() -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    old = generator.normal(size=(50, 3))
    return old, old + 0.3 * generator.normal(size=old.shape)


def test_of_classes_it_is_the_divergence_of_kullback_and_leibler(
    logits: tuple[np.ndarray, np.ndarray],
) -> None:
    old, new = logits
    p, q = special.softmax(old, axis=-1), special.softmax(new, axis=-1)
    each = stats.entropy(p, q, axis=-1)
    expected = (each.mean(), each.std(ddof=1) / np.sqrt(50))
    for arrays, from_logits in (((new, old), True), ((q, p), False)):
        found = divergence([arrays[0]], [arrays[1]], [_task("multiclass", from_logits)])
        np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_of_labels_it_is_that_of_each_label_in_the_mean(
    logits: tuple[np.ndarray, np.ndarray],
) -> None:
    old, new = logits
    p, q = special.expit(old), special.expit(new)
    each = stats.entropy([p, 1 - p], [q, 1 - q]).mean(axis=-1)
    for arrays, from_logits in (((new, old), True), ((q, p), False)):
        task = _task("multilabel", from_logits)
        value, _ = divergence([arrays[0]], [arrays[1]], [task])
        assert value == pytest.approx(each.mean(), rel=1e-5)


def test_of_numbers_it_is_a_share_of_their_variance() -> None:
    old = np.random.default_rng(1).normal(3, 2, size=(4000, 2))
    mean = np.broadcast_to(old.mean(axis=0), old.shape)
    assert divergence([mean], [old], [_task("regression")])[0] == pytest.approx(1.0)
    scaled = divergence([5 * mean], [5 * old], [_task("regression")])[0]
    assert scaled == pytest.approx(1.0)


def test_outputs_add_up_and_the_same_outputs_diverge_by_nothing(
    logits: tuple[np.ndarray, np.ndarray],
) -> None:
    old, new = logits
    tasks = [_task("multiclass", True), _task("regression")]
    both, _ = divergence([new, new], [old, old], tasks)
    alone = [divergence([new], [old], [task])[0] for task in tasks]
    assert both == pytest.approx(sum(alone))
    assert divergence([old, old], [old, old], tasks) == (0.0, 0.0)


def test_rows_and_positions_count_as_in_a_score() -> None:
    generator = np.random.default_rng(2)
    old, new = generator.normal(size=(2, 40, 5, 3))
    task, y = _task("multiclass", True), np.zeros((40, 5), dtype=int)
    each = stats.entropy(special.softmax(old, -1), special.softmax(new, -1), axis=-1)
    mask = generator.random((40, 5)) < 0.6
    found, _ = divergence([new], [old], [task], [count(y, None, mask, None)])
    assert found == pytest.approx(each[mask].mean())
    weights = generator.random(40)
    found, _ = divergence([new], [old], [task], [count(y, None, None, weights)])
    assert found == pytest.approx(np.average(each.mean(axis=1), weights=weights))


def test_the_standard_error_is_that_of_repeated_samples() -> None:
    generator = np.random.default_rng(3)
    task = _task("multiclass", True)

    def sample() -> tuple[float, float]:
        old = generator.normal(size=(200, 3))
        return divergence([old + 0.2 * generator.normal(size=old.shape)], [old], [task])

    values, errors = np.array([sample() for _ in range(300)]).T
    assert errors.mean() == pytest.approx(values.std(), rel=0.15)


def test_outputs_that_are_not_finite_are_refused() -> None:
    old = np.zeros((4, 3))
    with pytest.raises(DataError, match="NaN or infinite"):
        divergence([old * np.nan], [old], [_task("regression")], [Labels(old)])
