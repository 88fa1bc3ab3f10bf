"""Which candidates to average, chosen on their validation outputs without running a model."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import comb
from typing import Any

import numpy as np
from sklearn.model_selection import KFold

from saikei.fusion.averaging.weights import fit_weights
from saikei.runs.candidate import Cost
from saikei.scoring.labelled import Labelled, Outputs
from saikei.scoring.score import Score

MOST_MEMBERS = 4
# Above so many sets they are grown greedily instead of all being scored.
MOST_SETS = 5_000
FOLDS = 5
# Of the equally weighted ones, so many go on to be built and profiled.
KEPT = 2
# A member with less of a say is left out.
LEAST_WEIGHT = 1e-3


@dataclass(frozen=True)
class Sibling:
    """A candidate that may be a member.

    Args:
        name: of the candidate.
        cost: of its model.
        outputs: on the judge's samples.
    """

    name: str
    cost: Cost
    outputs: Outputs = field(repr=False)


@dataclass(frozen=True)
class AveragePlan:
    """An average that is to be built.

    Args:
        members: names of the candidates.
        weights: one for each, with sum 1.
        learned: whether they were fitted on validation.
        outputs: what to score it by: out-of-fold where the weights are learned.
    """

    members: tuple[str, ...]
    weights: tuple[float, ...]
    learned: bool
    outputs: Outputs = field(repr=False)


@dataclass(frozen=True)
class AverageChoice:
    """The averages to build, and how many sets were looked at."""

    plans: tuple[AveragePlan, ...]
    considered: int


def choose_averages(
    siblings: Sequence[Sibling], judge: Labelled, limits: Mapping[str, float], seed: int
) -> AverageChoice:
    """The best averages that the budget holds.

    Args:
        siblings: what may be averaged.
        judge: scores them.
        limits: of the budget, absolute; a set's cost is the sum of its members'.
        seed: of the folds on which learned weights are scored.

    Returns:
        The best equally weighted sets, and the best of them with learned weights.
    """
    scored = [
        (team, judge.score(mean_of([s.outputs for s in team])))
        for team in _teams(siblings, judge, limits)
    ]
    scored.sort(key=lambda pair: _rank(pair[1], pair[0]))
    plans = [_equal(team) for team, _ in scored[:KEPT]]
    learned = [plan for team, _ in scored[:KEPT] if (plan := _learned(team, judge, seed))]
    learned.sort(key=lambda plan: _rank(judge.score(plan.outputs), ()))
    return AverageChoice((*plans, *learned[:1]), len(scored))


def within(members: Iterable[Sibling], limits: Mapping[str, float]) -> bool:
    """Whether the members together keep the limits."""
    team = list(members)
    return all(sum(s.cost.on(axis) for s in team) <= limit for axis, limit in limits.items())


def _rank(score: Score, team: Sequence[Sibling]) -> tuple[float, float, int, tuple[str, ...]]:
    """Best metric first; ties by loss, then fewer members, then names, so that order is total."""
    value = -score.value if score.greater_is_better else score.value
    return value, score.loss, len(team), tuple(s.name for s in team)


def _teams(
    siblings: Sequence[Sibling], judge: Labelled, limits: Mapping[str, float]
) -> Iterator[tuple[Sibling, ...]]:
    sizes = range(2, min(MOST_MEMBERS, len(siblings)) + 1)
    if sum(comb(len(siblings), size) for size in sizes) > MOST_SETS:
        return _grown(siblings, judge, limits)
    every = itertools.chain.from_iterable(itertools.combinations(siblings, k) for k in sizes)
    return (team for team in every if within(team, limits))


def _grown(
    siblings: Sequence[Sibling], judge: Labelled, limits: Mapping[str, float]
) -> Iterator[tuple[Sibling, ...]]:
    """From each sibling, add the one that helps most while the budget holds it."""
    seen: set[frozenset[str]] = set()
    for start in siblings:
        team: tuple[Sibling, ...] = (start,)
        while len(team) < MOST_MEMBERS:
            wider = [(*team, s) for s in siblings if s not in team and within((*team, s), limits)]
            if not wider:
                break
            team = min(wider, key=lambda t: _rank(judge.score(mean_of([s.outputs for s in t])), t))
            names = frozenset(s.name for s in team)
            if names not in seen:
                seen.add(names)
                yield team


def _equal(team: Sequence[Sibling]) -> AveragePlan:
    names = tuple(s.name for s in team)
    outputs = mean_of([s.outputs for s in team])
    return AveragePlan(names, (1 / len(team),) * len(team), False, outputs)


def _learned(team: Sequence[Sibling], judge: Labelled, seed: int) -> AveragePlan | None:
    """Learned weights; `None` where all the weight goes to one member.

    The weights are fitted on all samples, but scored on folds that their fit has not seen.
    """
    if len(judge) < 2 * FOLDS:
        return None
    everything = np.arange(len(judge))
    weights = _fit(team, judge, everything)
    used = [(s, w) for s, w in zip(team, weights, strict=True) if w > 0]
    if len(used) < 2:
        return None
    folds = KFold(FOLDS, shuffle=True, random_state=seed % 2**32)
    held_out = [np.empty_like(output, dtype=np.float64) for output in team[0].outputs]
    for seen, unseen in folds.split(everything):
        fold = _fit(team, judge, seen)
        for place, output in enumerate(held_out):
            parts = np.stack([s.outputs[place][unseen] for s in team])
            output[unseen] = np.average(parts, axis=0, weights=fold)
    return AveragePlan(
        members=tuple(s.name for s, _ in used),
        weights=tuple(w for _, w in used),
        learned=True,
        outputs=tuple(held_out),
    )


def _fit(team: Sequence[Sibling], judge: Labelled, rows: Any) -> tuple[float, ...]:
    """The weights that are best on these rows, without those that are too small to pay for."""
    predictions = [[output[rows] for output in s.outputs] for s in team]
    labels = [part[rows] for part in judge.labels]
    fitted = np.array(fit_weights(judge.tasks, predictions, labels).values)
    fitted[fitted < LEAST_WEIGHT] = 0.0
    return tuple(float(weight) for weight in fitted / fitted.sum())


def mean_of(outputs: Sequence[Outputs], weights: Sequence[float] | None = None) -> Outputs:
    """The (weighted) mean of the outputs of several models, output by output."""
    return tuple(
        np.average(np.stack(parts), axis=0, weights=weights) for parts in zip(*outputs, strict=True)
    )
