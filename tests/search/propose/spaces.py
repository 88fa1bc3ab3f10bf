"""Made-up spaces, small enough to try every combination of levels."""

from __future__ import annotations

import itertools

import numpy as np

from saikei.edits import DropChannels
from saikei.edits.options import Option
from saikei.search.propose.space import AXES, Array, Levels, Memory, Site, Space, Term


def option(site: str, level: int) -> Option:
    edit = DropChannels({site: tuple(range(level))})
    return Option(site, "prune", f"level {level}", edit, (site,))


def space(seed: int, sites: int = 5, levels: int = 4, products: bool = True) -> Space:
    """A chain of layers: each costs by the level of its own site and of the one before it."""
    draw = np.random.default_rng(seed)
    kept = [np.concatenate([[1.0], np.sort(draw.uniform(0.1, 0.9, levels - 1))[::-1]])]
    kept += [kept[0] ** draw.uniform(0.5, 1.5) for _ in range(sites - 1)]
    made = []
    for number, shares in enumerate(kept):
        # Convex or not, as measured losses are.
        losses = (1 - shares) ** draw.uniform(0.6, 3) * draw.uniform(0.1, 2)
        options = tuple(option(f"s{number}", level) for level in range(1, levels))
        made.append(Site(f"s{number}", options, losses))
    sizes = draw.uniform(1, 50, (sites, 3)) * np.array([1000.0, 10.0, 40.0])
    terms = []
    for number in range(sites):
        table = np.multiply.outer(kept[number], sizes[number])
        if number and products:
            both = np.multiply.outer(kept[number - 1], kept[number])
            terms.append(Term((number - 1, number), np.multiply.outer(both, sizes[number])))
        else:
            terms.append(Term((number,), table))
    tensors = draw.uniform(100, 1000, sites)
    live = np.eye(sites) + np.eye(sites, k=1)
    saved = {n: np.outer(1 - kept[n], np.eye(sites)[n] * tensors[n]) for n in range(sites)}
    return Space(tuple(made), tuple(terms), np.ones(3), Memory(live, tensors, saved))


def every_levels(of: Space) -> list[Levels]:
    ranges = [range(len(site.losses)) for site in of.sites]
    return [np.array(levels) for levels in itertools.product(*ranges)]


def limits(**given: float) -> Array:
    found = np.full(len(AXES), np.inf)
    for name, value in given.items():
        found[AXES.index(name)] = value
    return found


def best_loss(of: Space, within: Array) -> float:
    """The least loss of all combinations that keep the limits; infinite where none do."""
    fitting = [of.loss(one) for one in every_levels(of) if (of.costs(one) <= within).all()]
    return min(fitting, default=np.inf)
