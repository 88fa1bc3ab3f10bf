"""What structures really lose, and what that teaches about the losses that are predicted."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import nnls
from scipy.stats import spearmanr

from saikei.edits.options import Option
from saikei.search.library import Library
from saikei.search.propose.path import Solution, fits, solution
from saikei.search.propose.space import Array, Levels, Space

# Divergence of the stitched and refitted model from the original, in the unit of the library.
Measure = Callable[[tuple[Option, ...]], float]

# The assumption that a method's weight is 1 counts as much as so many measurements.
PRIOR = 0.1


@dataclass(frozen=True)
class Agreement:
    """Predicted and real losses of some structures.

    Args:
        predicted: The sum of the losses of their options.
        reweighted: The sum with a weight for each method, fitted to the other structures.
        measured: The real loss.
    """

    predicted: tuple[float, ...]
    reweighted: tuple[float, ...]
    measured: tuple[float, ...]

    @property
    def correlation(self) -> float:
        """Rank correlation of predicted and real losses."""
        return _correlation(self.predicted, self.measured)

    @property
    def reweighted_correlation(self) -> float:
        """The same with weights for methods."""
        return _correlation(self.reweighted, self.measured)

    @property
    def ratio(self) -> float:
        """Median of real over predicted loss."""
        pairs = [(m, p) for m, p in zip(self.measured, self.predicted, strict=True) if p > 0]
        return float(np.median([m / p for m, p in pairs])) if pairs else 1.0


def agreement(
    library: Library, structures: Sequence[tuple[Option, ...]], measured: Sequence[float]
) -> Agreement:
    """How well the library predicts what structures lose.

    Args:
        library: The library.
        structures: The options of each structure.
        measured: The real loss of each.
    """
    parts = [parts_of(library, options) for options in structures]
    predicted = [sum(one.values()) for one in parts]
    reweighted = []
    for left_out, one in enumerate(parts):
        others = [i for i in range(len(parts)) if i != left_out]
        weights = fit_weights([parts[i] for i in others], [measured[i] for i in others])
        reweighted.append(sum(weights.get(m, 1.0) * loss for m, loss in one.items()))
    return Agreement(tuple(predicted), tuple(reweighted), tuple(measured))


def parts_of(library: Library, options: Sequence[Option]) -> dict[str, float]:
    """The predicted loss of a structure, by method; blocks lose together what they lost together.

    Args:
        library: The library.
        options: The options; those that are not in the library count as lossless.
    """
    parts: dict[str, float] = defaultdict(float)
    blocks = {entry.option.site: entry.loss for entry in library.depth}
    removed = [blocks[o.site] for o in options if o.edit.one_by_one and o.site in blocks]
    if removed:
        parts[library.depth[0].option.method] = max(removed)
    known = {(e.option.site, e.option.change): e for e in library.entries}
    taken = [known.get((o.site, o.change)) for o in options if not o.edit.one_by_one]
    entries = [entry for entry in taken if entry is not None]
    replaced = next((entry for entry in entries if entry.option.edit.replaces), None)
    for entry in entries:
        parts[entry.option.method] += library.added_loss(entry, replaced)
    return dict(parts)


def fit_weights(
    parts: Sequence[Mapping[str, float]], measured: Sequence[float]
) -> dict[str, float]:
    """One weight for each method, so that weighted losses are near the real ones.

    Relative errors count, so that small structures and large ones weigh the same, and weights are
    drawn to their common factor where little is known.

    Args:
        parts: For each structure, the predicted loss of each method.
        measured: The real losses.
    """
    methods = sorted({method for one in parts for method in one})
    rows = [(one, real) for one, real in zip(parts, measured, strict=True) if real > 0]
    if not methods or not rows:
        return {}
    ratios = [real / max(sum(one.values()), 1e-12) for one, real in rows]
    common = float(np.exp(np.mean(np.log(ratios))))
    matrix = np.array([[one.get(m, 0.0) / real for m in methods] for one, real in rows])
    prior = np.sqrt(PRIOR) * np.eye(len(methods)) / common
    system = np.concatenate([matrix, prior])
    target = np.concatenate([np.ones(len(rows)), np.full(len(methods), np.sqrt(PRIOR))])
    found, _ = nnls(system, target)
    return {m: float(max(w, 1e-3 * common)) for m, w in zip(methods, found, strict=True)}


def random_structures(
    spaces: Sequence[Space], count: int, generator: np.random.Generator
) -> list[tuple[Option, ...]]:
    """Structures of random levels, from few changes to many.

    Args:
        spaces: The spaces, the first of which removes and replaces nothing. Another one is taken
            as often as a site is changed.
        count: How many.
        generator: Source of the random numbers.
    """
    found = []
    for _ in range(count):
        share = generator.uniform(0.1, 1.0)
        other = generator.random() < share
        space = spaces[int(generator.integers(len(spaces))) if other else 0]
        levels = [
            int(generator.integers(1, len(site.losses))) if generator.random() < share else 0
            for site in space.sites
        ]
        if not any(levels):
            site = int(generator.integers(len(levels)))
            levels[site] = int(generator.integers(1, len(space.sites[site].losses)))
        found.append(space.options(levels))
    return found


def swapped(
    start: Solution,
    real: float,
    limits: Array,
    measure: Callable[[Levels], float | None],
    tries: int,
) -> tuple[Solution, float]:
    """Exchange levels of two sites at about the same cost, where the real loss falls by it.

    Args:
        start: The levels to begin with.
        real: Their real loss.
        limits: The limit of each predicted cost, in the order of `AXES`.
        measure: Gives the real loss of levels; `None` where they cannot be built or cost too much.
        tries: How many times to measure.

    Returns:
        The best levels that were found, and their real loss.
    """
    best, tried = start, {tuple(start.levels.tolist())}
    for _ in range(tries):
        candidates = [levels for levels in _swaps(best, limits) if tuple(levels) not in tried]
        if not candidates:
            break
        levels = min(candidates, key=best.space.loss)
        tried.add(tuple(levels.tolist()))
        found = measure(levels)
        if found is not None and found < real:
            best, real = solution(best.space, levels), found
    return best, real


def _swaps(at: Solution, limits: Array) -> list[Levels]:
    """Levels with one site a step up, or that and another site a step down, within the limits."""
    space = at.space
    neighbours = [
        _next_levels(space, site, int(at.levels[site])) for site in range(len(space.sites))
    ]
    found = []
    for site, (up, _) in enumerate(neighbours):
        if up is None:
            continue
        for other, (_, down) in enumerate(neighbours):
            levels = at.levels.copy()
            levels[site] = up
            if other != site:
                if down is None:
                    continue
                levels[other] = down
            if fits(space.costs(levels), limits):
                found.append(levels)
    return found


def _next_levels(space: Space, site: int, level: int) -> tuple[int | None, int | None]:
    """The levels of the next smaller and the next larger loss."""
    losses = space.sites[site].losses
    order = [int(i) for i in np.argsort(losses, kind="stable")]
    index = order.index(level)
    up = order[index - 1] if index > 0 else None
    return up, order[index + 1] if index + 1 < len(order) else None


def _correlation(first: Sequence[float], second: Sequence[float]) -> float:
    if len(first) < 2 or len(set(first)) < 2 or len(set(second)) < 2:
        return float("nan")
    return float(spearmanr(first, second).statistic)
