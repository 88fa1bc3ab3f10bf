"""Folds divide the rows, keep groups, classes and time, and are refused where they leak."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import KFold, ShuffleSplit, TimeSeriesSplit

from saikei.errors import DataError, InputError
from saikei.scoring import Task
from saikei.training.folds import class_numbers, make_folds

CLASSES = np.repeat([0, 1, 2], [30, 20, 10])


@settings(max_examples=50, deadline=None)
@given(st.integers(2, 60), st.integers(2, 8), st.integers(0, 2**40), st.booleans())
def test_every_row_is_predicted_once_and_never_by_a_fold_that_trains_on_it(n, k, seed, grouped):
    groups = np.arange(n) // 2 if grouped else None
    if (n + 1) // 2 < k:
        return
    folds = make_folds(k, n, groups=groups, seed=seed)
    np.testing.assert_array_equal(np.sort(np.concatenate([f.test for f in folds])), np.arange(n))
    for fold in folds:
        assert len(fold.train) + len(fold.test) == n
        assert not set(fold.train) & set(fold.test)
        if grouped:
            assert not set(groups[fold.train]) & set(groups[fold.test])


def test_a_number_of_folds_is_stratified_by_class():
    for fold in make_folds(5, 60, CLASSES, needed=[0, 1, 2]):
        np.testing.assert_array_equal(np.bincount(CLASSES[fold.test]), [6, 4, 2])


def test_a_seed_decides_the_folds():
    one, two, other = (make_folds(3, 60, CLASSES, seed=s) for s in (1, 1, 2))
    assert all(np.array_equal(a.test, b.test) for a, b in zip(one, two, strict=True))
    assert not all(np.array_equal(a.test, b.test) for a, b in zip(one, other, strict=True))


def test_time_ordered_folds_train_on_the_past_alone():
    folds = make_folds(TimeSeriesSplit(4), 50)
    assert all(fold.train.max() < fold.test.min() for fold in folds)
    assert 0 not in np.concatenate([fold.test for fold in folds])


def test_lists_of_indices_and_masks_are_folds():
    mask = np.arange(6) < 3
    (fold,) = make_folds([(mask, [3, 5])], 6)
    assert fold.train.tolist() == [0, 1, 2] and fold.test.tolist() == [3, 5]


@pytest.mark.parametrize(
    ("folds", "error", "message"),
    [
        (1, InputError, "at least 2"),
        (True, InputError, "give a number"),
        ("five", InputError, "'five'"),
        ([], InputError, "no folds"),
        ([([0], [])], InputError, "test part of fold 1 is empty"),
        ([([], [0])], InputError, "training part of fold 1 is empty"),
        ([([0, 1], [1, 2])], InputError, "trains on 1 rows that it predicts, first row 1"),
        ([([0], [1]), ([2], [1])], InputError, "1 rows are predicted by more than one fold"),
        ([([0], [99])], InputError, "outside 0 to 59"),
        ([([0.5], [1])], InputError, "whole numbers"),
        ([(0, 1, 2)], InputError, "pairs of index arrays"),
        (ShuffleSplit(3, random_state=0), InputError, "KFold and not ShuffleSplit"),
        (KFold(100), DataError, "KFold cannot split the 60 rows"),
        (61, DataError, "60 rows cannot be divided into 61"),
        (TimeSeriesSplit(5), DataError, "Class 1 is missing from the training part of fold 1"),
    ],
)
def test_folds_that_cannot_be_used_get_one_clear_line(folds, error, message):
    with pytest.raises(error, match=message) as caught:
        make_folds(
            folds, 60, CLASSES if isinstance(folds, TimeSeriesSplit) else None, needed=(0, 1, 2)
        )
    assert "\n" not in str(caught.value)


def test_a_class_of_one_row_is_missing_from_a_fold_by_name():
    classes = np.array([0] * 9 + [7])
    with pytest.raises(DataError, match="Class 7 is missing"):
        make_folds(3, 10, classes, needed=[0, 7])


def test_groups_are_one_for_each_row_and_no_fewer_than_folds():
    with pytest.raises(DataError, match="one for each"):
        make_folds(2, 10, groups=[1, 2])
    with pytest.raises(DataError, match="2 groups cannot be divided into 3"):
        make_folds(3, 10, groups=[1, 2] * 5)


def test_classes_are_read_from_labels_of_every_kind():
    def task(kind, sparse=False):
        return Task(kind, None, "accuracy", False, sparse, 3)

    expected = [2, 0, 1]
    assert class_numbers(task("multiclass", True), np.array([[2], [0], [1]])).tolist() == expected
    assert class_numbers(task("multiclass"), np.eye(3)[expected]).tolist() == expected
    assert class_numbers(task("binary"), np.array([1.0, 0.0])).tolist() == [1, 0]
    assert class_numbers(task("multilabel"), np.eye(3)) is None
    assert class_numbers(task("regression"), np.arange(3.0)) is None
    assert class_numbers(task("multiclass", True), np.zeros((3, 4, 4), int)) is None
