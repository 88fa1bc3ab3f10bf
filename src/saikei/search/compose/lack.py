"""`lack`: what the best team lacks, a hint for the next candidates."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from saikei.batches import Array
from saikei.budget import Budget
from saikei.runs.candidate import Cost
from saikei.scoring.labelled import Labelled, Outputs
from saikei.scoring.score import per_sample
from saikei.search.compose.spend import Limits
from saikei.search.compose.team import Lack, Member, Team
from saikei.training.folds import class_numbers

CLASSES = 3


def lack(
    team: Team, members: Sequence[Member], judge: Labelled, budget: Budget, whole: Cost
) -> Lack:
    """What is still wrong with a team, and how much of the budget it leaves.

    Args:
        team: The best team.
        members: All members that could be combined.
        judge: The labels of validation.
        budget: The budget as given.
        whole: The cost that the budget's shares refer to.
    """
    left = Limits(budget, whole).left(team.cost)
    if any(task.kind == "regression" for task in judge.tasks):
        prior = judge.loss(judge.prior(team.outputs))
        unexplained = judge.loss(team.outputs) / prior if prior > 0 else 0.0
        return Lack(left, min(1.0, unexplained), (), 0.0)
    wrong = _wrong(team.outputs, judge)
    nobody = np.prod([_wrong(one.outputs, judge) for one in members], axis=0)
    return Lack(left, float(wrong.mean()), _worst(wrong, judge), float(nobody.mean()))


def _wrong(outputs: Outputs, judge: Labelled) -> Array:
    """For each row the share of its labels that are not predicted, over all outputs, `(n,)`."""
    each = [
        per_sample(task, labels, output)
        for task, labels, output in zip(judge.tasks, judge.labels, outputs, strict=True)
    ]
    return np.asarray(np.clip(1.0 - np.mean(each, axis=0), 0.0, 1.0))


def _worst(wrong: Array, judge: Labelled) -> tuple[int, ...]:
    """The classes with the largest share of wrong rows, of one output with classes."""
    if len(judge.tasks) > 1:
        return ()
    classes = class_numbers(judge.tasks[0], judge.labels[0])
    if classes is None:
        return ()
    counted = judge.labels[0].counted
    classes, wrong = classes[counted], wrong[counted]
    found = np.unique(classes)
    rates = [float(wrong[classes == one].mean()) for one in found]
    worst = np.argsort([-rate for rate in rates], kind="stable")[:CLASSES]
    return tuple(int(found[i]) for i in worst if rates[i] > 0)
