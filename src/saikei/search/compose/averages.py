"""Averages and stacks of sets of members, each fitted one scored by folds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from saikei.fusion.average import Average
from saikei.fusion.average.weighted_mean import WeightedMean
from saikei.fusion.base import OutputFusion
from saikei.fusion.evidence import Evidence
from saikei.fusion.stack import Stack
from saikei.fusion.stack.metas import LinearMeta, Meta
from saikei.judging.nested import Nest, NestedScore
from saikei.runs.candidate import Cost
from saikei.search.compose.ensemble import Ensemble, Member, Method
from saikei.search.compose.sets import Pool, ScoredSet, mean_of
from saikei.search.compose.spend import together, with_head

# Members with a smaller learned weight are left out.
LEAST_WEIGHT = 1e-3
# Rows on which it is tried whether a stack is promising.
TRIAL_ROWS = 1000


def single(member: Member, pool: Pool) -> Ensemble:
    """One member as it is."""
    score = pool.judge.score(member.outputs)
    return Ensemble("single", (member.name,), (), None, None, score, member.outputs, member.cost, 0)


def equal_average(members: Sequence[Member], pool: Pool) -> Ensemble:
    """The mean of the members' outputs, to which nothing is fitted."""
    outputs = mean_of([one.outputs for one in members])
    count = len(members)
    weights = (1 / count,) * count
    return Ensemble(
        method="average",
        members=tuple(one.name for one in members),
        weights=weights,
        fusion=Average(),
        head=WeightedMean(weights),
        score=pool.judge.score(outputs),
        outputs=outputs,
        cost=together([one.cost for one in members]),
        complexity=1,
    )


def fitted_average(
    found: ScoredSet, pool: Pool, method: Literal["learned", "greedy"], seed: int
) -> Ensemble | None:
    """An average of a set with fitted weights; `None` when one member gets all the weight.

    Args:
        found: The set. Members whose weight is 0 are left out of the ensemble.
        pool: Members and limits.
        method: `"learned"` for the best convex weights, `"greedy"` for greedy selection.
        seed: Seed of the folds.

    Raises:
        DataError: When there are too few rows for folds.
    """
    learned = method == "learned"
    fusion = Average("learn") if learned else Average("greedy", seed=seed % 2**32)
    nest = nest_of(found.members, pool, seed)
    head = fusion.fit_head(nest.evidence)
    assert isinstance(head, WeightedMean)
    pairs = zip(found.members, head.weights, strict=True)
    used = [(member, weight) for member, weight in pairs if weight >= LEAST_WEIGHT]
    if len(used) < 2:
        return None
    total = sum(weight for _, weight in used)
    weights = tuple(weight / total for _, weight in used)
    nested = nest.score(fusion)
    return Ensemble(
        method=method,
        members=tuple(member.name for member, _ in used),
        weights=weights,
        fusion=Average(weights),
        head=WeightedMean(weights),
        score=nested.score,
        outputs=nested.outputs,
        cost=together([member.cost for member, _ in used]),
        complexity=fusion.complexity,
    )


def stacks(sets: Sequence[ScoredSet], pool: Pool, seed: int) -> tuple[list[Ensemble], int]:
    """A stack on the outputs of the best set that leaves room in the budget for its weights.

    Fitting one takes longer than anything else here. So it is fitted to all rows and scored by
    folds only when on some rows its own cross-validation has a lower loss than the mean of the set.

    Args:
        sets: Sets of members, the best first.
        pool: Members and limits.
        seed: Seed of the folds.

    Returns:
        The stack, if it is promising, and how many were considered.

    Raises:
        SaikeiError: When there are too few rows, or the outputs are maps or sequences.
    """
    found = next((one for one in sets if pool.limits.allow(_with_weights(one.members))), None)
    if found is None:
        return [], 0
    fusion = Stack(folds=2, seed=seed % 2**32)
    nest = nest_of(found.members, pool, seed)
    if not _promising(fusion, nest.evidence, seed):
        return [], 1
    head, cost = fusion.fit_head(nest.evidence), _with_weights(found.members)
    return [fitted_ensemble("stack", found.members, fusion, head, nest.score(fusion), cost)], 1


def _promising(fusion: Stack, evidence: Evidence, seed: int) -> bool:
    """Whether on some rows a stack has a lower loss out of fold than the members' mean."""
    order = np.random.default_rng(seed).permutation(len(evidence))
    some = evidence.take(np.sort(order[:TRIAL_ROWS]))
    mean = some.labelled.loss(mean_of(some.predictions.outputs))
    return sum(_cross_validated(meta) for meta in fusion.fit_head(some).metas) < mean


def _with_weights(members: Sequence[Member]) -> Cost:
    """The cost of members and a linear map of all their outputs to each output."""
    widths = [one.shape[-1] for one in members[0].outputs]
    weights = sum(width * (len(members) * width + 1) for width in widths)
    return with_head(together([one.cost for one in members]), weights)


def _cross_validated(meta: Meta) -> float:
    """The lowest loss in the cross-validation that chose a meta-learner."""
    assert isinstance(meta, LinearMeta)
    return min(float(loss) for tried in meta.losses.values() for loss in tried.values())


def fitted_ensemble(
    method: Method,
    members: Sequence[Member],
    fusion: OutputFusion[Any],
    head: Any,
    nested: NestedScore,
    cost: Cost,
) -> Ensemble:
    """An ensemble whose head was fitted to all rows, and which is scored by folds."""
    return Ensemble(
        method=method,
        members=tuple(one.name for one in members),
        weights=(),
        fusion=fusion,
        head=head,
        score=nested.score,
        outputs=nested.outputs,
        cost=cost,
        complexity=fusion.complexity,
    )


def nest_of(members: Sequence[Member], pool: Pool, seed: int) -> Nest:
    """The members' stored predictions, divided into folds.

    Raises:
        DataError: When there are fewer rows than folds, or a class is missing from a fold.
    """
    evidence = Evidence.stored(pool.judge, [one.outputs for one in members])
    return Nest.stored(evidence, seed)
