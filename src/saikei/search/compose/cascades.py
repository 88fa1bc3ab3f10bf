"""Cascades of members: which ones, and the thresholds that keep the budget."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from saikei.errors import FusionError
from saikei.fusion.cascade import Cascade
from saikei.fusion.cascade.classifiers import open_exits
from saikei.fusion.cascade.fitting import ExitHead, make_stage_table
from saikei.fusion.cascade.policies import front
from saikei.fusion.evidence import Evidence
from saikei.judging.nested import Nest, NestedScore
from saikei.search.compose.averages import fitted_ensemble, nest_of
from saikei.search.compose.ensemble import Ensemble, Member
from saikei.search.compose.sets import Pool, ScoredSet
from saikei.search.compose.spend import PER_ROW, of_cascade

# Chains that are fitted and scored by folds, of those that are best when fitted to all rows.
KEPT = 2
LAST = 3
FIRST = 6
# Pairs that a third member is tried in, the best first.
GROWN = 3
# The mean cost on other rows differs a little from that on the rows that chose the thresholds.
MARGIN = 0.98


def cascades(pool: Pool, seed: int) -> tuple[tuple[Ensemble, ...], int]:
    """The most accurate cascades within the budget.

    Where the budget counts the mean over rows, the last member may cost more than the budget;
    otherwise all members together have to keep it.

    Args:
        pool: Members and limits.
        seed: Seed of the folds.

    Returns:
        The cascades whose mean cost is within the budget on rows that did not choose their
        thresholds, and how many chains of members were considered.

    Raises:
        FusionError: When the members are no classifiers of one class for a row.
        DataError: When there are too few rows for folds.
    """
    ranked, considered = rated_chains(pool)
    made = [_fitted(one.members, pool, seed) for one in ranked[:KEPT]]
    return tuple(one for one in made if one is not None), considered


def rated_chains(pool: Pool) -> tuple[tuple[ScoredSet, ...], int]:
    """Chains with thresholds that keep the budget, and their merit on the rows that chose these.

    Args:
        pool: Members and limits.

    Returns:
        The chains, the best first, and how many were considered.

    Raises:
        FusionError: When the members are no classifiers of one class for a row.
    """
    chains = [_rated(chain, pool) for chain in _chains(pool)]
    pairs = sorted((one for one in chains if one), key=_order)
    grown = {chain: None for pair in pairs[:GROWN] for chain in _with_another(pair.members, pool)}
    longer = [_rated(chain, pool) for chain in grown]
    ranked = sorted([*pairs, *(one for one in longer if one)], key=_order)
    return tuple(ranked), len(chains) + len(longer)


def _order(chain: ScoredSet) -> tuple[float, float, int, tuple[str, ...]]:
    return -chain.merit[0], -chain.merit[1], len(chain.members), chain.names


def _chains(pool: Pool) -> Iterator[tuple[Member, ...]]:
    """Pairs of a cheap member and one of the best that cost more."""
    axis = pool.limits.axis
    every = pool.best_first(one for one in pool.members if pool.limits.allow_last(one.cost))
    firsts = _spread(_undominated(every, pool), FIRST)
    for last in every[:LAST]:
        for first in firsts:
            cheaper = first.cost.on(axis) < last.cost.on(axis)
            if cheaper and first.inputs == last.inputs and _possible((first, last), pool):
                yield first, last


def _with_another(pair: tuple[Member, ...], pool: Pool) -> Iterator[tuple[Member, ...]]:
    """The pair with a member before the two or between them."""
    axis = pool.limits.axis
    first, last = pair
    for one in _spread(_undominated(pool.members, pool), FIRST):
        if one in pair or one.inputs != first.inputs or one.cost.on(axis) >= last.cost.on(axis):
            continue
        cheaper = one.cost.on(axis) < first.cost.on(axis)
        chain = (one, first, last) if cheaper else (first, one, last)
        if _possible(chain, pool):
            yield chain


def _undominated(members: Sequence[Member], pool: Pool) -> list[Member]:
    """Members that no cheaper one is as good as, cheapest first."""
    axis, merits = pool.limits.axis, pool.merits
    found: list[Member] = []
    for one in sorted(members, key=lambda m: (m.cost.on(axis), *(-x for x in merits[m.name]))):
        if not found or merits[one.name] > merits[found[-1].name]:
            found.append(one)
    return found


def _spread(members: Sequence[Member], most: int) -> list[Member]:
    if len(members) <= most:
        return list(members)
    return [members[i] for i in np.linspace(0, len(members) - 1, most).round().astype(int)]


def _possible(chain: Sequence[Member], pool: Pool) -> bool:
    """Whether the chain keeps the budget if as few rows as possible go on."""
    costs = [one.cost for one in chain]
    return pool.limits.allow(of_cascade(costs, (1.0,) + (0.0,) * (len(chain) - 1)))


def _costs(chain: Sequence[Member], pool: Pool) -> tuple[float, ...]:
    return tuple(one.cost.on(pool.limits.axis) for one in chain)


def _bound(chain: Sequence[Member], pool: Pool) -> float:
    """The mean cost to keep, in units of the last member's."""
    costs, limits = _costs(chain, pool), pool.limits
    if not limits.mean:
        # No thresholds exceed the cost of all members: the most accurate ones are chosen.
        return sum(costs) / costs[-1]
    per_row = [name for name in PER_ROW if name in limits.absolute]
    return MARGIN * min(limits.absolute[name] / chain[-1].cost.on(name) for name in per_row)


def _rated(chain: tuple[Member, ...], pool: Pool) -> ScoredSet | None:
    """A chain with its merit on all rows; `None` when no thresholds keep the cost."""
    evidence = Evidence.stored(pool.judge, [one.outputs for one in chain])
    exits = open_exits(evidence.members, evidence.tasks, "max_probability", "last")
    table = make_stage_table(exits, evidence, _costs(chain, pool))
    bound = _bound(chain, pool)
    kept = [one for one in front(table) if one.cost <= bound]
    if not kept:
        return None
    best = max(kept, key=lambda policy: policy.accuracy)
    head = ExitHead(replace(exits, thresholds=best.thresholds), None)
    return ScoredSet(chain, pool.judge.merit(head.predict(evidence.predictions)))


def _fitted(chain: tuple[Member, ...], pool: Pool, seed: int) -> Ensemble | None:
    """The better of two ways to combine outputs, by folds; `None` when neither keeps the budget."""
    nest = nest_of(chain, pool, seed)
    made = [_scored(chain, _cascade(chain, how, pool), nest, pool) for how in ("last", "average")]
    kept = [one for one in made if one is not None]
    return max(kept, key=lambda ensemble: pool.judge.merit(ensemble.outputs), default=None)


def _cascade(chain: Sequence[Member], combine: str, pool: Pool) -> Cascade:
    return Cascade(
        cost=_bound(chain, pool),
        combine="last" if combine == "last" else "average",
        certainty=None,
        costs=_costs(chain, pool),
    )


def _scored(chain: tuple[Member, ...], fusion: Cascade, nest: Nest, pool: Pool) -> Ensemble | None:
    try:
        nested = nest.score(fusion)
        head = fusion.fit_head(nest.evidence)
    except FusionError:
        # No thresholds keep the cost on these rows, or none are better than the last member.
        return None
    costs = [one.cost for one in chain]
    cost = of_cascade(costs, _shares(nested, nest))
    if not pool.limits.allow(cost):
        return None
    return fitted_ensemble("cascade", chain, fusion, head, nested, cost)


def _shares(nested: NestedScore, nest: Nest) -> tuple[float, ...]:
    """The share of rows that each member sees, with thresholds that other rows chose."""
    each = []
    for head, fold in zip(nested.heads, nest.folds, strict=True):
        assert isinstance(head, ExitHead)
        each.append(head.stages(nest.evidence.take(fold.test).predictions))
    stages = np.concatenate(each)
    count = len(nest.evidence.predictions.outputs)
    return tuple(float((stages >= stage).mean()) for stage in range(count))
