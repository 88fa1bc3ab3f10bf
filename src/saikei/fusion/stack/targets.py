"""Labels in the form that meta-learners are fitted to, and the loss that decides among them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from saikei.batches import Array
from saikei.errors import DataError
from saikei.scoring.labelled import Labelled
from saikei.scoring.labels import Labels
from saikei.scoring.task import Task
from saikei.training.folds import Fold, class_numbers, make_folds


@dataclass(frozen=True, eq=False)
class StackLabels:
    """Labels of one output, in the form that meta-learners are fitted to.

    Args:
        labelled: The labels as they are in the data, with how much each counts.
        y: Class numbers `(n,)`, 0 and 1 for each label `(n, labels)`, or numbers `(n, outputs)`.
    """

    labelled: Labelled
    y: Array

    @property
    def task(self) -> Task:
        """What the output learns."""
        return self.labelled.tasks[0]

    @property
    def labels(self) -> Labels:
        """The labels as they are in the data."""
        return self.labelled.labels[0]

    def loss(self, scores: Array, rows: Array) -> float:
        """Mean log-loss (nats) of logits, or squared error, on some rows."""
        return self.labelled.take(rows).as_logits().loss([scores])

    @property
    def weights(self) -> Array | None:
        """How much each row `(n,)` or label `(n, labels)` counts; `None` where all count alike."""
        if self.labels.importance is None:
            return None
        return self.labels.over(self.y.shape) if self.labels.by_position else self.labels.rows()

    @property
    def row_weights(self) -> Array | None:
        """How much each row counts, `(n,)`; `None` where all count alike."""
        return None if self.labels.importance is None else self.labels.rows()

    def take(self, rows: Array) -> StackLabels:
        """Some of the rows."""
        return StackLabels(self.labelled.take(rows), self.y[rows])


def stack_labels(task: Task, labels: Any) -> StackLabels:
    """Bring labels into the form that meta-learners are fitted to.

    Raises:
        DataError: When labels of a class task are soft, or a class has fewer than two rows.
    """
    given = Labelled.of([task], [labels])
    labels = given.labels[0].values
    if task.kind == "regression":
        return StackLabels(given, labels.reshape(len(labels), -1).astype(np.float64))
    if not np.isin(labels, (0, 1)).all() and not task.sparse:
        raise DataError("A Stack is fitted to classes, and these labels are soft: round them.")
    if task.kind == "multilabel":
        return StackLabels(given, labels.reshape(len(labels), -1).astype(int))
    y = class_numbers(task, labels)
    assert y is not None
    counts = np.bincount(y, minlength=max(task.outputs, 2))
    if counts.min() < 2:
        few = int(counts.argmin())
        raise DataError(
            f"Class {few} has {counts[few]} of the {len(y)} rows, and a Stack needs two of each to "
            "learn it: give more rows, or use Average."
        )
    return StackLabels(given, y)


def folds_of(target: StackLabels, folds: int, seed: int) -> tuple[Fold, ...]:
    """Folds stratified by class; fewer than asked for where a class has too few rows for all.

    Raises:
        DataError: When there are fewer rows than folds.
    """
    classes = target.y if target.task.kind in ("binary", "multiclass") else None
    needed = [] if classes is None else np.unique(classes).tolist()
    return make_folds(folds, len(target.labels), classes, seed=seed, needed=needed)
