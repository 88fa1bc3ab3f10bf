"""Folds: which rows to train on and which to predict, from scikit-learn's splitters or lists."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.model_selection import GroupKFold, KFold, StratifiedGroupKFold, StratifiedKFold

from saikei.arguments import shown
from saikei.errors import DataError, InputError
from saikei.scoring.labels import as_labels
from saikei.scoring.task import Task

Indices = np.ndarray[Any, np.dtype[np.intp]]


@dataclass(frozen=True, eq=False)
class Fold:
    """One division of the rows.

    Args:
        train: Indices of the rows to train on.
        test: Indices of the rows to predict; none of them is trained on.
    """

    train: Indices
    test: Indices


def make_folds(
    folds: Any,
    count: int,
    classes: Indices | None = None,
    groups: Any = None,
    seed: int = 0,
    needed: Sequence[int] = (),
) -> tuple[Fold, ...]:
    """Divide rows.

    Args:
        folds: Their number; a splitter of scikit-learn, such as `TimeSeriesSplit(5)`; or pairs of
            index arrays `(train, test)`. A number means shuffled folds, stratified by class where
            there are classes; with groups, rows of one group stay together.
        count: Number of rows.
        classes: The classes of the rows, `(n,)`, if they have any.
        groups: The groups of the rows, `(n,)`, if they have any.
        seed: The seed of the shuffling, for a number.
        needed: Classes that every training part has to hold.

    Raises:
        InputError: When `folds` is none of these, a fold is empty, trains on what it predicts,
            or two folds predict one row.
        DataError: When a class is missing from the training part of a fold, there are fewer
            rows or groups than folds, or groups are not one for each row.
    """
    if groups is not None and np.shape(groups) != (count,):
        raise DataError(f"groups has shape {np.shape(groups)} for {count} rows: give one for each.")
    made = tuple(
        Fold(_indices(train, count), _indices(test, count))
        for train, test in _pairs(folds, count, classes, groups, seed)
    )
    if not made:
        raise InputError("There are no folds: give at least one pair (train, test).")
    predicted = np.zeros(count, dtype=int)
    for number, fold in enumerate(made, start=1):
        _check(number, fold, classes, needed)
        predicted[fold.test] += 1
    if predicted.max() > 1:
        raise InputError(
            f"{int((predicted > 1).sum()):,} rows are predicted by more than one fold: give folds "
            "whose test parts do not overlap, such as KFold and not ShuffleSplit."
        )
    return made


def class_numbers(task: Task, labels: Any) -> Indices | None:
    """The class of each row; `None` where a row has no single one.

    Args:
        task: What the output learns.
        labels: An array or `Labels`.
    """
    y = as_labels(labels).values
    if task.kind == "binary" and y.size == len(y):
        return y.reshape(-1).astype(np.intp)
    if task.kind != "multiclass":
        return None
    if task.sparse:
        return y.reshape(-1).astype(np.intp) if y.size == len(y) else None
    return y.argmax(axis=-1).astype(np.intp) if y.ndim == 2 else None


def _pairs(
    folds: Any, count: int, classes: Indices | None, groups: Any, seed: int
) -> list[tuple[Any, Any]]:
    if isinstance(folds, (int, np.integer)) and not isinstance(folds, bool):
        folds = _splitter(int(folds), count, classes, groups, seed)
    split = getattr(folds, "split", None)
    if callable(split) and not isinstance(folds, (str, bytes)):
        try:
            with warnings.catch_warnings():
                # A class with fewer rows than folds; whether it is missing from a fold is checked.
                warnings.filterwarnings("ignore", message="The least populated class")
                return list(split(np.zeros((count, 1)), classes, groups))
        except ValueError as error:
            raise DataError(
                f"{type(folds).__name__} cannot split the {count} rows: {error}"
            ) from error
    if isinstance(folds, Iterable) and not isinstance(folds, (str, bytes)):
        pairs = list(folds)
        if all(isinstance(pair, (tuple, list)) and len(pair) == 2 for pair in pairs):
            return [(train, test) for train, test in pairs]
    raise InputError(
        f"folds={shown(folds)}: give a number of at least 2, a splitter of scikit-learn, or a list "
        "of pairs of index arrays (train, test)."
    )


def _splitter(folds: int, count: int, classes: Indices | None, groups: Any, seed: int) -> Any:
    if folds < 2:
        raise InputError(f"folds={folds}: give a number of at least 2.")
    many = count if groups is None else len(np.unique(groups))
    if many < folds:
        kind = "rows" if groups is None else "groups"
        raise DataError(f"{many} {kind} cannot be divided into {folds} folds: give fewer folds.")
    stratified = classes is not None and int(np.bincount(classes).max()) >= folds
    # scikit-learn takes seeds of 32 bits.
    shuffled = {"shuffle": True, "random_state": seed % 2**32}
    if groups is None:
        return (StratifiedKFold if stratified else KFold)(folds, **shuffled)
    return StratifiedGroupKFold(folds, **shuffled) if stratified else GroupKFold(folds)


def _indices(part: Any, count: int) -> Indices:
    array = np.asarray(part)
    if array.dtype == np.bool_ and array.shape == (count,):
        array = np.flatnonzero(array)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise InputError(
            f"A fold has indices of shape {array.shape} and type {array.dtype}: give whole numbers "
            "(n,)."
        )
    if array.size and not 0 <= int(array.min()) <= int(array.max()) < count:
        raise InputError(f"A fold has indices outside 0 to {count - 1}, the rows of the data.")
    return array.astype(np.intp)


def _check(number: int, fold: Fold, classes: Indices | None, needed: Sequence[int]) -> None:
    for name, part in (("training", fold.train), ("test", fold.test)):
        if not len(part):
            raise InputError(f"The {name} part of fold {number} is empty: give it rows.")
    both = np.intersect1d(fold.train, fold.test)
    if len(both):
        raise InputError(
            f"Fold {number} trains on {len(both):,} rows that it predicts, first row {both[0]}: "
            "leave them out of its training part."
        )
    if classes is None:
        return
    missing = sorted(set(needed) - set(classes[fold.train].tolist()))
    if missing:
        raise DataError(
            f"Class {missing[0]} is missing from the training part of fold {number}: give more "
            "rows of it, fewer folds, or stratified ones."
        )
