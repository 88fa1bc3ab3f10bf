"""From the original downwards: the option that loses least for what it saves, again and again.

What an option saves depends on the levels of the others, and so it is taken from the tables at the
current levels. The steps of one path answer every budget: see `Front`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from saikei.search.propose.position import Position
from saikei.search.propose.space import AXES, MEMORY, Array, Levels, Space

# Rounds of improvements of one solution.
ROUNDS = 60
# Steps of the front from which the solution within a limit is improved, and the number of sites
# above which it is only one: then each step is a small part of the whole.
STARTS = 4
MANY = 20
# Pairs of steps that are tried in each round, the most promising first.
PAIRS = 8
# Differences of losses below it are rounding errors.
LEAST = 1e-12


@dataclass(frozen=True)
class Solution:
    """Levels that keep limits.

    Args:
        space: The space of the levels.
        levels: The level of each site.
        loss: Their predicted loss.
        costs: Their predicted costs, in the order of `AXES`.
    """

    space: Space
    levels: Levels
    loss: float
    costs: Array


def solution(space: Space, levels: Levels) -> Solution:
    """The levels with what is predicted for them."""
    return Solution(space, levels, space.loss(levels), space.costs(levels))


def descend(space: Space, axis: str) -> list[Levels]:
    """The levels after each step of the path that saves one cost.

    Args:
        space: The space.
        axis: What is saved, one of `AXES` but the memory.
    """
    column = AXES.index(axis)
    at = Position.at(space, space.origin)
    found = [at.levels]
    steps: dict[int, tuple[float, int]] = {}
    stale = frozenset(range(len(space.sites)))
    while True:
        for site in stale:
            step = _best_step(at, site, at.tables[site][:, column])
            steps.pop(site, None)
            if step is not None:
                steps[site] = step
        if not steps:
            return found
        site = min(steps, key=lambda s: (steps[s][0], s))
        at = at.moved(site, steps[site][1])
        found.append(at.levels)
        stale = space.neighbours[site]


def descend_to(space: Space, limits: Array) -> Levels:
    """Towards several limits, by the steps that lose least for what they bring nearer.

    Args:
        space: The space.
        limits: The limit of each cost, in the order of `AXES`; infinite where there is none.

    Returns:
        The first levels that keep all limits, or those at the end of the path if none do.
    """
    at = Position.at(space, space.origin)
    while not fits(at.costs, limits):
        best: tuple[float, int, int] | None = None
        for site in range(len(space.sites)):
            step = _best_step(at, site, _excess(at, site, limits))
            if step is not None and (best is None or (step[0], site) < best[:2]):
                best = step[0], site, step[1]
        if best is None:
            break
        at = at.moved(best[1], best[2])
    return at.levels


def improve(space: Space, levels: Levels, limits: Array) -> Levels:
    """Levels of less loss that keep the limits too: single steps, and one step for another.

    Args:
        space: The space.
        levels: Levels that keep the limits.
        limits: As in `descend_to`.
    """
    at = Position.at(space, levels)
    for _ in range(ROUNDS):
        better = _better(at, limits)
        if better is None:
            break
        at = better
    return at.levels


def _better(at: Position, limits: Array) -> Position | None:
    """The best step to less loss, or else one to less loss with another that pays for it."""
    steps = at.steps(memory=bool(np.isfinite(limits[MEMORY])))
    room = limits - at.costs
    ups = np.flatnonzero(steps.losses < -LEAST)
    single = ups[(steps.costs[ups] <= room).all(axis=1)]
    if len(single):
        step = single[np.argmin(steps.losses[single])]
        return at.moved(int(steps.sites[step]), int(steps.levels[step]))
    downs = np.flatnonzero(steps.losses >= -LEAST)
    gains = np.add.outer(steps.losses[ups], steps.losses[downs])
    allowed = (gains < -LEAST) & (steps.sites[ups][:, None] != steps.sites[downs])
    for axis in np.flatnonzero(np.isfinite(limits)):
        both = np.add.outer(steps.costs[ups, axis], steps.costs[downs, axis])
        allowed &= both <= room[axis]
    firsts, seconds = np.nonzero(allowed)
    order = np.argsort(gains[firsts, seconds], kind="stable")[:PAIRS]
    # Steps of two sites that depend on each other do not cost what they cost alone.
    for up, down in zip(ups[firsts[order]], downs[seconds[order]], strict=True):
        tried = at.moved(int(steps.sites[up]), int(steps.levels[up]))
        tried = tried.moved(int(steps.sites[down]), int(steps.levels[down]))
        if fits(tried.costs, limits):
            return tried
    return None


def _best_step(at: Position, site: int, values: Array) -> tuple[float, int] | None:
    """The level of a site that loses least for what it saves: the slope and the level."""
    now, losses = int(at.levels[site]), at.space.sites[site].losses
    saved = values[now] - values
    better = saved > 1e-9 * max(abs(float(values[now])), 1e-9)
    if not better.any():
        return None
    slopes = np.where(better, (losses - losses[now]) / np.where(better, saved, 1.0), np.inf)
    # Of equal slopes the one that saves more.
    level = int(np.lexsort((-saved, slopes))[0])
    return float(slopes[level]), level


def _excess(at: Position, site: int, limits: Array) -> Array:
    """How far the costs are above the limits, as shares of them, for each level of a site."""
    table = at.tables[site]
    totals = at.additive + table - table[int(at.levels[site])]
    over = np.maximum(totals - limits[:MEMORY], 0.0) / limits[:MEMORY]
    excess = over.sum(axis=1)
    if at.space.memory is not None and np.isfinite(limits[MEMORY]):
        rows = np.maximum(at.alive(site) - limits[MEMORY], 0.0)
        excess = excess + rows.sum(axis=1) / limits[MEMORY]
    return np.asarray(excess)


def fits(costs: Array, limits: Array) -> bool:
    """Whether costs keep limits, both in the order of `AXES`."""
    return bool((costs <= limits).all())


def front(spaces: Sequence[Space], axis: str) -> Front:
    """The path of each space along one cost."""
    column = AXES.index(axis)
    points = []
    for space in spaces:
        for levels in descend(space, axis):
            found = solution(space, levels)
            points.append((float(found.costs[column]), found.loss, found))
    return Front(axis, tuple(found for _, _, found in sorted(points, key=lambda p: p[:2])))


@dataclass(frozen=True)
class Front:
    """The steps of all paths along one cost, cheapest first.

    Args:
        axis: The cost.
        points: The steps.
    """

    axis: str
    points: tuple[Solution, ...]

    def within(self, limit: float) -> Solution | None:
        """The best of the last steps within a limit, improved; `None` where none keeps it."""
        column = AXES.index(self.axis)
        found = [p for p in self.points if p.costs[column] <= limit]
        if not found:
            return None
        limits = np.full(len(AXES), np.inf)
        limits[column] = limit
        count = STARTS if len(found[0].levels) <= MANY else 1
        starts = sorted(found, key=lambda p: p.loss)[:count]
        return min((improved(start, limits) for start in starts), key=lambda p: p.loss)

    def least(self) -> tuple[Solution, ...]:
        """The steps that no cheaper one beats, cheapest first."""
        kept: list[Solution] = []
        for point in self.points:
            if not kept or point.loss < kept[-1].loss:
                kept.append(point)
        return tuple(kept)


def improved(found: Solution, limits: Array) -> Solution:
    """The solution after `improve`."""
    return solution(found.space, improve(found.space, found.levels, limits))
