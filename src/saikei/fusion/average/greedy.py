"""Greedy ensemble selection: add, again and again, the member that helps most.

Caruana et al., "Ensemble Selection from Libraries of Models", 2004: with replacement, so that
counts are weights; and 2006 ("Getting the Most Out of Ensemble Selection"): bags of members
against overfitting. Scores are compared to six decimals and ties go to members that are in
already, then to the lower log-loss, then to the first, so that equal members do not split their
weight.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from saikei.blas import one_thread
from saikei.codec import ToDict
from saikei.errors import FusionError
from saikei.fusion.average.candidates import (
    AccuracyCandidates,
    Candidates,
    candidates_of,
)
from saikei.fusion.average.objectives import Loss, loss_of
from saikei.fusion.average.weights import finite
from saikei.scoring.task import Task, labels_of

Metric: TypeAlias = Literal["loss", "accuracy"]
ROUNDS = 25
# The share of the members in a bag.
BAG = 0.5
_DECIMALS = 6
_EQUAL = 1e-9


@dataclass(frozen=True)
class Selection(ToDict):
    """Members that were selected, and the weights that follow.

    Args:
        values: One weight for each member: the share of all picks that are its own.
        picks: Indices of the members in the order in which they were taken, up to the best
            prefix; of several bags one after the other.
        losses: The loss, or the share of errors, after each of the picks.
    """

    values: tuple[float, ...]
    picks: tuple[int, ...]
    losses: tuple[float, ...]


def select_weights(
    tasks: Task | Sequence[Task],
    predictions: Sequence[Any],
    y: Any,
    *,
    rounds: int = ROUNDS,
    bags: int = 1,
    metric: Metric = "loss",
    seed: int = 0,
) -> Selection:
    """Weights of an average by greedy selection.

    Args:
        tasks: What the output learns, or one for each output.
        predictions: One entry for each member: `(n, …, outputs)`, or for several outputs a list
            of such arrays. They should come from data that no member was trained on.
        y: Labels, or a list of labels for each output.
        rounds: How many members to take; of these the prefix of the lowest loss is kept.
        bags: How many selections, each among a random half of the members, whose weights are
            averaged; 1 selects once, among all.
        metric: `"loss"` (log-loss or squared error), or `"accuracy"`, of one multiclass output.
        seed: Seed of the bags.

    Raises:
        FusionError: When there are fewer than two members, or an argument is out of range.
        DataError: When predictions are not finite, or do not fit each other or the labels.
    """
    if isinstance(tasks, Task):
        tasks, predictions, y = (tasks,), [[one] for one in predictions], [y]
    _check(len(predictions), tasks, rounds, bags, metric)
    members = [finite(member, number) for number, member in enumerate(predictions, start=1)]
    loss = loss_of(tasks, members, y)
    weights, picks, losses = np.zeros(len(members)), [], []
    for among in _bags(len(members), bags, seed):
        if metric == "accuracy":
            first = [members[i][0] for i in among]
            candidates: Candidates = AccuracyCandidates(
                np.stack(first), labels_of(tasks[0], first[0], y[0])
            )
        else:
            candidates = candidates_of(loss, among)
        with one_thread():
            taken, after = greedy(candidates, rounds, _ties(metric, loss, among))
        picks += [int(among[pick]) for pick in taken]
        losses += after
        weights += np.bincount(among[taken], minlength=len(members)) / (len(taken) * bags)
    return Selection(tuple(float(weight) for weight in weights), tuple(picks), tuple(losses))


def greedy(
    candidates: Candidates, rounds: int, ties: Candidates | None = None
) -> tuple[list[int], list[float]]:
    """Take members one by one, with replacement, and keep the best prefix.

    Args:
        candidates: The loss with each candidate, which is minimised.
        rounds: How many members to take.
        ties: Another loss, which decides between members of equal loss.

    Returns:
        Indices of the members that were taken, and the loss after each.
    """
    taken: list[int] = []
    after: list[float] = []
    for number in range(rounds):
        values = candidates.joined()
        if number and abs(after[0]) > 1e-4:
            values = values.round(_DECIMALS)
        best = _best(values, taken, ties)
        value = float(values[best])
        if not number and abs(value) > 1e-4:
            value = round(value, _DECIMALS)
        taken.append(best)
        after.append(value)
        candidates.take(best)
        if ties is not None:
            ties.take(best)
    # The first of equally good prefixes, whatever the rounding error.
    count = int(np.argmax(np.array(after) <= min(after) + _EQUAL)) + 1
    return taken[:count], after[:count]


def _best(values: NDArray[np.float64], taken: Sequence[int], ties: Candidates | None) -> int:
    least = values.min()
    equal = np.flatnonzero(values <= least + 1e-12 * abs(least))
    if len(equal) > 1 and taken:
        again = equal[np.isin(equal, taken)]
        equal = again if len(again) else equal
    if len(equal) > 1 and ties is not None:
        second = ties.joined(equal)
        equal = equal[second <= second.min() + 1e-12 * abs(second.min())]
    return int(equal[0])


def _ties(metric: Metric, loss: Loss, among: NDArray[np.int64]) -> Candidates | None:
    return candidates_of(loss, among) if metric == "accuracy" else None


def _bags(members: int, bags: int, seed: int) -> list[NDArray[np.int64]]:
    if bags == 1:
        return [np.arange(members)]
    generator = np.random.default_rng(seed)
    size = max(1, round(BAG * members))
    return [np.sort(generator.choice(members, size, replace=False)) for _ in range(bags)]


def _check(members: int, tasks: Sequence[Task], rounds: int, bags: int, metric: Metric) -> None:
    if members < 2:
        raise FusionError(f"Weights need at least two members, got {members}.")
    for name, value in (("rounds", rounds), ("bags", bags)):
        if value < 1:
            raise FusionError(f"{name}={value}: use 1 or more.")
    if metric not in ("loss", "accuracy"):
        raise FusionError(f"metric={metric!r} is unknown: use 'loss' or 'accuracy'.")
    if metric == "accuracy" and (len(tasks) > 1 or tasks[0].kind != "multiclass"):
        raise FusionError("metric='accuracy' selects for one multiclass output: use metric='loss'.")
