"""`gains`: what each member adds to the best ensemble within the budget."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from saikei.budget import Budget
from saikei.errors import FusionError
from saikei.fusion.average.candidates import candidates_of
from saikei.fusion.average.objectives import loss_of
from saikei.runs.candidate import Cost
from saikei.scoring.labelled import Labelled
from saikei.search.compose.cascades import rated_chains
from saikei.search.compose.ensemble import Member
from saikei.search.compose.sets import Pool, ScoredSet, grown_sets, scored_set


@dataclass(frozen=True, order=True)
class Gain:
    """What a member adds to the best ensemble; sorts by the metric, then by the loss.

    Args:
        metric: By how much the best ensemble with the member is better than the best one without
            it, in the metric, where more is better. Below 0 for a member that the best ensemble
            does better without.
        loss: The same for the loss: by how much it is lower, in nats or squared error.
    """

    metric: float
    loss: float


def gains(
    members: Sequence[Member], judge: Labelled, budget: Budget, whole: Cost
) -> Mapping[str, Gain]:
    """What each member adds to the best ensemble within the budget.

    Ensembles are single members and equally weighted means, which follow from stored predictions in
    little time, and cascades where the budget counts the mean over rows. The best ensemble that has
    the member is compared with the best one that has not; among them the best mean with the member
    added or dropped, or exchanged for another.

    Args:
        members: Trained candidates and given models, with different names.
        judge: The labels of validation. Where it has a metric, that decides.
        budget: The budget as given.
        whole: The cost that the budget's shares refer to.

    Returns:
        A gain for each member that keeps the budget, alone or in a cascade, by name.
    """
    pool = Pool.of(members, judge, budget, whole)
    alone = [ScoredSet((one,), pool.merits[one.name]) for one in pool.ranked]
    means = sorted([*alone, *grown_sets(pool)], key=lambda one: one.merit, reverse=True)
    changed = _changed(means[0].members, pool) if means else {}
    known = [*means, *_chains(pool)]
    found = {}
    for one in pool.members:
        every = [*known, *changed.get(one.name, ())]
        having = max((s.merit for s in every if one in s.members), default=None)
        if having is not None:
            # Where nothing is left without a member, it is worth as much as any other.
            lacking = max((s.merit for s in every if one not in s.members), default=having)
            found[one.name] = Gain(having[0] - lacking[0], having[1] - lacking[1])
    return found


def _chains(pool: Pool) -> Sequence[ScoredSet]:
    """Cascades, where the budget lets members run on a part of the rows."""
    if not pool.limits.mean:
        return ()
    try:
        return rated_chains(pool)[0]
    except FusionError:
        # The members are no classifiers.
        return ()


def _changed(best: Sequence[Member], pool: Pool) -> dict[str, list[ScoredSet]]:
    """For each member the best ensemble with it added or exchanged, or of a member without it."""
    others = [one for one in pool.ranked if one not in best]
    found: dict[str, list[ScoredSet]] = {one.name: [] for one in pool.ranked}
    nearest: dict[str, tuple[float, tuple[Member, ...]]] = {}
    for left in _shortened(best):
        fitting = [one for one in others if pool.allows([*left, one])]
        losses = _losses(left, fitting, pool)
        for one, loss in zip(fitting, losses, strict=True):
            if loss < nearest.get(one.name, (np.inf,))[0]:
                nearest[one.name] = loss, (*left, one)
        if len(left) < len(best):
            (gone,) = (one for one in best if one not in left)
            swapped = [(*left, fitting[int(np.argmin(losses))])] if fitting else []
            tried = [*([left] if left else []), *swapped]
            found[gone.name] += [scored_set(each, pool.judge) for each in tried]
    for name, (_, ensemble) in nearest.items():
        found[name].append(scored_set(ensemble, pool.judge))
    return found


def _shortened(best: Sequence[Member]) -> Iterator[tuple[Member, ...]]:
    """The ensemble, and the ensemble without each of its members in turn."""
    yield tuple(best)
    for member in best:
        yield tuple(one for one in best if one is not member)


def _losses(left: Sequence[Member], joining: Sequence[Member], pool: Pool) -> Sequence[float]:
    """The loss of the mean of some members and one more, for each that may join."""
    if not joining:
        return []
    every = [*left, *joining]
    if len(every) == 1:
        return [-pool.merits[every[0].name][1]]
    loss = loss_of(pool.judge.tasks, [one.outputs for one in every], pool.judge.labels)
    candidates = candidates_of(loss, np.arange(len(every)))
    for index in range(len(left)):
        candidates.take(index)
    return [float(one) for one in candidates.joined(np.arange(len(left), len(every)))]
