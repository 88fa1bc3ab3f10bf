"""Several limits at once: the best of all levels, as a linear problem with whole numbers."""

from __future__ import annotations

import contextlib
import itertools
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import lil_matrix

from saikei.search.propose.path import Solution, descend_to, fits, improve, solution
from saikei.search.propose.position import Position
from saikei.search.propose.space import MEMORY, Array, Levels, Space

# How often the costs are made linear again, each time at the last solution.
ROUNDS = 4
# Seconds for one solution.
PATIENCE = 2.0


def within_limits(space: Space, limits: Array) -> Solution | None:
    """The levels of the least predicted loss that keep all limits.

    Costs are made linear at the current solution, the whole problem is solved, and the limits of
    the linear problem are moved by what its solution misses, until it is no better.

    Args:
        space: The space.
        limits: The limit of each cost, in the order of `AXES`; infinite where there is none.

    Returns:
        The solution, or `None` where no path keeps the limits.
    """
    best = near_limits(space, limits)
    if best is None:
        return None
    at, aim = best, limits.copy()
    for _ in range(ROUNDS):
        levels = solve_linear(space, at.levels, aim)
        if levels is None:
            break
        found = solution(space, levels)
        if fits(found.costs, limits):
            found = solution(space, improve(space, levels, limits))
            if found.loss >= best.loss - 1e-12:
                break
            best = at = found
            continue
        over = np.maximum(found.costs / limits, 1.0)
        aim, at = aim / over, best
    return best


def near_limits(space: Space, limits: Array) -> Solution | None:
    """Levels that keep all limits, from one path and single steps: not always the best.

    Args:
        space: The space.
        limits: As in `within_limits`.
    """
    start = descend_to(space, limits)
    if not fits(space.costs(start), limits):
        return None
    return solution(space, improve(space, start, limits))


def solve_linear(space: Space, levels: Levels, limits: Array) -> Levels | None:
    """The best levels where costs change as they do for single steps from the given levels.

    Args:
        space: The space.
        levels: Where the costs are exact.
        limits: As in `within_limits`.
    """
    if not space.sites:
        return levels
    sizes = [len(site.losses) for site in space.sites]
    starts = np.concatenate([[0], np.cumsum(sizes)])
    rows, bounds = _rows(space, levels, limits, starts)
    one = lil_matrix((len(sizes), starts[-1]))
    for site in range(len(sizes)):
        one[site, starts[site] : starts[site + 1]] = 1.0
    with silenced():
        result = milp(
            np.concatenate([site.losses for site in space.sites]),
            integrality=np.ones(starts[-1]),
            bounds=Bounds(0, 1),
            constraints=[
                LinearConstraint(one.tocsr(), 1.0, 1.0),
                LinearConstraint(rows, -np.inf, bounds),
            ],
            options={"time_limit": PATIENCE, "mip_rel_gap": 1e-6},
        )
    if result.x is None:
        return None
    chosen = [np.argmax(result.x[a:b]) for a, b in itertools.pairwise(starts)]
    return np.array(chosen, dtype=np.int64)


def _rows(space: Space, levels: Levels, limits: Array, starts: Array) -> tuple[Array, Array]:
    """Changes of the costs by every level of every site, and the room that is left."""
    at = Position.at(space, levels)
    axes = [axis for axis in range(MEMORY) if np.isfinite(limits[axis])]
    alive = at.rows if np.isfinite(limits[MEMORY]) else np.zeros(0)
    blocks = []
    for site, table in enumerate(at.tables):
        change = (table - table[int(levels[site])])[:, axes]
        peaks = (at.alive(site) - at.rows)[:, : len(alive)]
        blocks.append(np.concatenate([change, peaks], axis=1))
    room = [limits[axis] - at.additive[axis] for axis in axes] + list(limits[MEMORY] - alive)
    matrix = np.concatenate(blocks).T if blocks else np.zeros((len(room), int(starts[-1])))
    scale = np.maximum(np.abs(matrix).max(axis=1, initial=0.0), 1.0)
    return matrix / scale[:, None], np.array(room) / scale


@contextlib.contextmanager
def silenced() -> Iterator[None]:
    """Nothing that is written to the process's standard output gets there: the solver may print."""
    sys.stdout.flush()
    saved = os.dup(1)
    try:
        with Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), 1)
        yield
    finally:
        os.dup2(saved, 1)
        os.close(saved)
