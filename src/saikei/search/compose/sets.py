"""Sets of members whose equally weighted mean is good, grown within the budget."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice

import numpy as np

from saikei.budget import Budget
from saikei.fusion.average.candidates import candidates_of
from saikei.fusion.average.objectives import loss_of
from saikei.runs.candidate import Cost
from saikei.scoring.labelled import Labelled, Outputs
from saikei.search.compose.ensemble import Member
from saikei.search.compose.spend import Limits, together

MOST_MEMBERS = 8
# Sets are grown from the best members of which 1, 2, 3, … fit into the budget: `STARTS` of each.
PARTS = (1, 2, 3, 4, 6, 8)
STARTS = 2
# Beside a start, members join of which 1, 2, … fit into what it leaves: a few large, or more small.
JOINING = (1, 2, 3)
# Only so many of the best of these are looked at.
POOL = 32
# How many sets, those with the lowest loss, are compared by the metric at each step.
WIDTH = 2


@dataclass(frozen=True)
class Pool:
    """Members, the labels that they are judged by, and the limits of the budget.

    Args:
        members: All members, with different names.
        judge: The labels of validation.
        limits: The limits of the budget.
    """

    members: tuple[Member, ...]
    judge: Labelled = field(repr=False)
    limits: Limits

    @classmethod
    def of(cls, members: Iterable[Member], judge: Labelled, budget: Budget, whole: Cost) -> Pool:
        """The members whose predictions are finite numbers.

        Args:
            members: Members with different names.
            judge: The labels of validation.
            budget: The budget as given.
            whole: The cost that the budget's shares refer to.
        """
        sound = (one for one in members if all(np.isfinite(part).all() for part in one.outputs))
        return cls(tuple(sound), judge, Limits(budget, whole))

    @cached_property
    def merits(self) -> dict[str, tuple[float, float]]:
        """For each member its metric and loss, where more is better; see `Labelled.merit`."""
        return {one.name: self.judge.merit(one.outputs) for one in self.members}

    @cached_property
    def ranked(self) -> tuple[Member, ...]:
        """The members that keep the budget alone, the best first."""
        return self.best_first(one for one in self.members if self.limits.allow(one.cost))

    def best_first(self, members: Iterable[Member]) -> tuple[Member, ...]:
        """Members in order of their merit; equal ones by name."""
        merits = self.merits
        return tuple(sorted(members, key=lambda m: (*(-one for one in merits[m.name]), m.name)))

    def allows(self, members: Sequence[Member]) -> bool:
        """Whether members keep the budget side by side."""
        return self.limits.allow(together([one.cost for one in members]))


@dataclass(frozen=True)
class ScoredSet:
    """Members and the merit of their equally weighted mean.

    Args:
        members: In the order in which they joined.
        merit: The metric and the loss, where more is better.
    """

    members: tuple[Member, ...]
    merit: tuple[float, float]

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the members, sorted."""
        return tuple(sorted(one.name for one in self.members))


def grown_sets(pool: Pool) -> tuple[ScoredSet, ...]:
    """Sets of two members or more within the budget, best first.

    They are grown member by member, from large and from small ones: by the loss, which is fast to
    compute for all members that could join, and of those with the lowest loss the best by the
    metric joins. So the number of sets that are scored does not depend on the number of members.

    Args:
        pool: Members and limits.
    """
    found: dict[tuple[str, ...], ScoredSet] = {}
    for start in _starts(pool):
        for count in JOINING:
            joining = [
                one
                for one in pool.ranked
                if one is not start and pool.allows([start, *[one] * count])
            ]
            for grown in _growth(start, joining[:POOL], pool):
                found.setdefault(grown.names, grown)
    return tuple(sorted(found.values(), key=lambda s: (-s.merit[0], -s.merit[1], s.names)))


def _starts(pool: Pool) -> tuple[Member, ...]:
    """The best members of each size, each once."""
    found: dict[str, Member] = {}
    for count in PARTS:
        fitting = (one for one in pool.ranked if pool.limits.allow_part(one.cost, count))
        found |= {one.name: one for one in islice(fitting, STARTS)}
    return tuple(found.values())


def _growth(start: Member, joining: Sequence[Member], pool: Pool) -> Iterator[ScoredSet]:
    """Sets grown from one member: `WIDTH` of them for each member that joins."""
    if not joining:
        return
    every, judge = [start, *joining], pool.judge
    loss = loss_of(judge.tasks, [one.outputs for one in every], judge.labels)
    candidates = candidates_of(loss, np.arange(len(every)))
    candidates.take(0)
    taken = [0]
    while len(taken) < MOST_MEMBERS and (free := _joinable(taken, every, pool)):
        losses = candidates.joined(np.array(free))
        nearest = [free[i] for i in np.argsort(losses, kind="stable")[:WIDTH]]
        scored = [scored_set([every[i] for i in (*taken, one)], judge) for one in nearest]
        yield from scored
        best = max(range(len(scored)), key=lambda i: (scored[i].merit, -i))
        candidates.take(nearest[best])
        taken.append(nearest[best])


def _joinable(taken: Sequence[int], every: Sequence[Member], pool: Pool) -> list[int]:
    chosen = [every[i] for i in taken]
    return [i for i, one in enumerate(every) if i not in taken and pool.allows([*chosen, one])]


def scored_set(members: Sequence[Member], judge: Labelled) -> ScoredSet:
    """Members with the merit of their mean.

    Args:
        members: At least one.
        judge: The labels of validation.
    """
    return ScoredSet(tuple(members), judge.merit(mean_of([one.outputs for one in members])))


def mean_of(outputs: Sequence[Outputs]) -> Outputs:
    """The mean of the outputs of several models, output by output."""
    return tuple(np.mean(np.stack(parts), axis=0) for parts in zip(*outputs, strict=True))
