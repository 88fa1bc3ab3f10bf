"""Skill: the share of the loss of constant predictions that a member saves, row by row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from saikei.batches import Array
from saikei.scoring.labelled import Labelled
from saikei.scoring.links import log_probabilities
from saikei.scoring.score import per_sample
from saikei.scoring.task import Task
from saikei.scoring.temperature import fit_temperature

# An untrained network too has an order and a preprocessing that suit it best: its skill in them is
# below this.
SKILLED = 0.25


def skills(labelled: Labelled, outputs: Sequence[Array]) -> Array:
    """`1 - loss / loss of the best constant`, of each row, float64 `(n,)`.

    At most 1, and 0 on average for predictions that are the label frequencies.
    """
    chance = labelled.loss(labelled.prior(outputs))
    return np.asarray(1 - labelled.losses(outputs) / (chance if chance > 0 else 1.0))


def rightness(tasks: Sequence[Task], labels: Sequence[Any], outputs: Sequence[Any]) -> Array | None:
    """The share of each row's classes or labels that is right; `None` where all is regression."""
    each = zip(tasks, labels, outputs, strict=True)
    shares = [per_sample(*one) for one in each if one[0].kind != "regression"]
    return np.asarray(np.mean(shares, axis=0)) if shares else None


def tempered_loss(task: Task, labels: Any, outputs: Array) -> float:
    """The mean loss at the best temperature; for regression the mean loss.

    Outputs that differ in a temperature alone have the same.
    """
    if task.kind == "regression":
        return Labelled.of([task], [labels]).loss([outputs])
    logits = log_probabilities(task, outputs)
    if task.kind != "multiclass":
        logits = logits - log_probabilities(task, -outputs if task.from_logits else 1 - outputs)
    return fit_temperature(task, logits, labels).loss


def tempered_skill(task: Task, labels: Any, outputs: Array) -> float:
    """The mean skill at the temperature that suits the predictions best."""
    labelled = Labelled.of([task], [labels])
    chance = labelled.loss(labelled.prior([outputs]))
    return 1 - tempered_loss(task, labels, outputs) / chance if chance > 0 else 0.0
