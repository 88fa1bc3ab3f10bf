"""Choose which candidates to average, from their stored validation outputs."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import comb
from typing import Any

import numpy as np
from sklearn.model_selection import KFold

from saikei.fusion.average.weights import fit_weights
from saikei.runs.candidate import Cost
from saikei.scoring.labelled import Labelled, Outputs
from saikei.scoring.score import Score

MOST_MEMBERS = 4
# More subsets than this are not all scored: subsets are grown greedily instead.
MOST_SETS = 5_000
FOLDS = 5
# Number of equally weighted averages that are built and profiled.
KEPT = 2
# Members with a smaller weight are left out.
LEAST_WEIGHT = 1e-3


@dataclass(frozen=True)
class Sibling:
    """A candidate that may become a member of an average.

    Args:
        name: Name of the candidate.
        cost: Cost of its model.
        outputs: Its outputs on the judge's samples, one array for each output of the model.
    """

    name: str
    cost: Cost
    outputs: Outputs = field(repr=False)


@dataclass(frozen=True)
class AveragePlan:
    """An average that is to be built.

    Args:
        members: Names of the candidates.
        weights: One weight for each member; their sum is 1.
        learned: Whether the weights were fitted on validation.
        outputs: Outputs to score it by: out of fold if the weights are learned.
    """

    members: tuple[str, ...]
    weights: tuple[float, ...]
    learned: bool
    outputs: Outputs = field(repr=False)


@dataclass(frozen=True)
class AverageChoice:
    """The averages to build, and how many subsets were scored."""

    plans: tuple[AveragePlan, ...]
    considered: int


def choose_averages(
    siblings: Sequence[Sibling], judge: Labelled, limits: Mapping[str, float], seed: int
) -> AverageChoice:
    """The best averages within the budget.

    Args:
        siblings: Candidates that may be averaged.
        judge: Scores the averages.
        limits: Absolute limits of the budget; a subset costs the sum of its members.
        seed: Seed of the folds on which learned weights are scored.

    Returns:
        The best subsets with equal weights, and the best of them with learned weights.
    """
    scored = [
        (subset, judge.score(mean_of([s.outputs for s in subset])))
        for subset in _subsets(siblings, judge, limits)
    ]
    scored.sort(key=lambda pair: _rank(pair[1], pair[0]))
    plans = [_equal(subset) for subset, _ in scored[:KEPT]]
    learned = [plan for subset, _ in scored[:KEPT] if (plan := _learned(subset, judge, seed))]
    learned.sort(key=lambda plan: _rank(judge.score(plan.outputs), ()))
    return AverageChoice((*plans, *learned[:1]), len(scored))


def within(members: Iterable[Sibling], limits: Mapping[str, float]) -> bool:
    """Whether the members keep the limits together, one running after the other."""
    subset = list(members)
    return all(
        (max if axis == "memory" else sum)(s.cost.on(axis) for s in subset) <= limit
        for axis, limit in limits.items()
    )


def _rank(score: Score, subset: Sequence[Sibling]) -> tuple[float, float, int, tuple[str, ...]]:
    """Sort key: best metric first; ties by loss, then number of members, then names."""
    value = -score.value if score.greater_is_better else score.value
    return value, score.loss, len(subset), tuple(s.name for s in subset)


def _subsets(
    siblings: Sequence[Sibling], judge: Labelled, limits: Mapping[str, float]
) -> Iterator[tuple[Sibling, ...]]:
    sizes = range(2, min(MOST_MEMBERS, len(siblings)) + 1)
    if sum(comb(len(siblings), size) for size in sizes) > MOST_SETS:
        return _grown_subsets(siblings, judge, limits)
    every = itertools.chain.from_iterable(itertools.combinations(siblings, k) for k in sizes)
    return (subset for subset in every if within(subset, limits))


def _grown_subsets(
    siblings: Sequence[Sibling], judge: Labelled, limits: Mapping[str, float]
) -> Iterator[tuple[Sibling, ...]]:
    """Subsets grown from each sibling, adding the best other one while the budget allows."""
    seen: set[frozenset[str]] = set()
    for start in siblings:
        subset: tuple[Sibling, ...] = (start,)
        while len(subset) < MOST_MEMBERS:
            wider = [
                (*subset, s) for s in siblings if s not in subset and within((*subset, s), limits)
            ]
            if not wider:
                break
            subset = min(
                wider, key=lambda t: _rank(judge.score(mean_of([s.outputs for s in t])), t)
            )
            names = frozenset(s.name for s in subset)
            if names not in seen:
                seen.add(names)
                yield subset


def _equal(subset: Sequence[Sibling]) -> AveragePlan:
    names = tuple(s.name for s in subset)
    outputs = mean_of([s.outputs for s in subset])
    return AveragePlan(names, (1 / len(subset),) * len(subset), False, outputs)


def _learned(subset: Sequence[Sibling], judge: Labelled, seed: int) -> AveragePlan | None:
    """An average with learned weights; `None` if one member gets all the weight.

    The weights are fitted to all samples, but scored on folds that their fit has not seen.
    """
    if len(judge) < 2 * FOLDS:
        return None
    everything = np.arange(len(judge))
    weights = _fit(subset, judge, everything)
    used = [(s, w) for s, w in zip(subset, weights, strict=True) if w > 0]
    if len(used) < 2:
        return None
    folds = KFold(FOLDS, shuffle=True, random_state=seed % 2**32)
    held_out = [np.empty_like(output, dtype=np.float64) for output in subset[0].outputs]
    for seen, unseen in folds.split(everything):
        fold = _fit(subset, judge, seen)
        for index, output in enumerate(held_out):
            parts = np.stack([s.outputs[index][unseen] for s in subset])
            output[unseen] = np.average(parts, axis=0, weights=fold)
    return AveragePlan(
        members=tuple(s.name for s, _ in used),
        weights=tuple(w for _, w in used),
        learned=True,
        outputs=tuple(held_out),
    )


def _fit(subset: Sequence[Sibling], judge: Labelled, rows: Any) -> tuple[float, ...]:
    """The best weights on these rows; those below `LEAST_WEIGHT` become 0."""
    predictions = [[output[rows] for output in s.outputs] for s in subset]
    labels = [part[rows] for part in judge.labels]
    fitted = np.array(fit_weights(judge.tasks, predictions, labels).values)
    fitted[fitted < LEAST_WEIGHT] = 0.0
    return tuple(float(weight) for weight in fitted / fitted.sum())


def mean_of(outputs: Sequence[Outputs], weights: Sequence[float] | None = None) -> Outputs:
    """The (weighted) mean of the outputs of several models, output by output."""
    return tuple(
        np.average(np.stack(parts), axis=0, weights=weights) for parts in zip(*outputs, strict=True)
    )
