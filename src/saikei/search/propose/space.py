"""The structures that a library spans, each with the loss and the costs that are predicted for it.

A structure is one level for each site: 0 leaves it as given, and each other level is an option.
Losses are added. Costs are not: those of a layer depend on the channels that it reads and on those
that it makes. So the costs are a sum of terms, and each term is a table over the levels of the few
sites that one call depends on.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from saikei.costs.per_call import ADDITIVE
from saikei.edits.options import Option

Array = NDArray[np.float64]
Levels = NDArray[np.int64]

MEMORY = len(ADDITIVE)
AXES = (*ADDITIVE, "memory")


@dataclass(frozen=True)
class Site:
    """A place in the model with its options.

    Args:
        name: Name of the site.
        options: The options; level 0 is none of them, level 1 the first.
        losses: Loss of each level, 0 first, in the unit of the library.
    """

    name: str
    options: tuple[Option, ...]
    losses: Array = field(repr=False)


@dataclass(frozen=True)
class Term:
    """A part of the costs that depends on a few sites.

    Args:
        sites: Positions of the sites.
        table: For each of their levels, MACs, parameters and bytes: an array with one axis for
            each site, and an axis of 3 as the last one.
    """

    sites: tuple[int, ...]
    table: Array = field(repr=False)


@dataclass(frozen=True)
class Memory:
    """The live activations of one sample, moment by moment.

    Args:
        live: For each call and each tensor, whether it is alive, `(calls, tensors)`.
        sizes: Bytes of each tensor in the original, `(tensors,)`.
        saved: For each site, the bytes that each level takes from each tensor, `(levels,
            tensors)`; sites that save none are left out.
    """

    live: NDArray[np.float64] = field(repr=False)
    sizes: Array = field(repr=False)
    saved: dict[int, Array] = field(repr=False)

    def rows(self, levels: Levels) -> Array:
        """The bytes that are alive at each call."""
        sizes = self.sizes.copy()
        for site, saved in self.saved.items():
            sizes -= saved[levels[site]]
        return np.asarray(self.live @ np.maximum(sizes, 0.0))


@dataclass(frozen=True)
class Space:
    """Sites, their losses, and the terms of the costs.

    Args:
        sites: The sites.
        terms: The costs that depend on levels.
        fixed: MACs, parameters and bytes that depend on none.
        memory: The live activations; `None` where memory does not matter.
        first: Options that all structures of the space have, such as blocks that are removed.
        base: Their loss.
    """

    sites: tuple[Site, ...]
    terms: tuple[Term, ...]
    fixed: Array
    memory: Memory | None = None
    first: tuple[Option, ...] = ()
    base: float = 0.0

    @property
    def origin(self) -> Levels:
        """Level 0 everywhere."""
        return np.zeros(len(self.sites), dtype=np.int64)

    @cached_property
    def terms_of(self) -> tuple[tuple[Term, ...], ...]:
        """The terms that depend on each site."""
        found: dict[int, list[Term]] = defaultdict(list)
        for term in self.terms:
            for site in term.sites:
                found[site].append(term)
        return tuple(tuple(found[site]) for site in range(len(self.sites)))

    @cached_property
    def neighbours(self) -> tuple[frozenset[int], ...]:
        """For each site, those whose savings depend on its level, itself included."""
        return tuple(
            frozenset({site, *(other for term in terms for other in term.sites)})
            for site, terms in enumerate(self.terms_of)
        )

    def loss(self, levels: Levels) -> float:
        """The predicted loss."""
        return self.base + sum(
            float(s.losses[level]) for s, level in zip(self.sites, levels, strict=True)
        )

    def costs(self, levels: Levels) -> Array:
        """The predicted costs, in the order of `AXES`."""
        total = np.zeros(len(AXES))
        total[:MEMORY] = self.fixed
        for term in self.terms:
            total[:MEMORY] += term.table[tuple(levels[list(term.sites)])]
        if self.memory is not None:
            total[MEMORY] = self.memory.rows(levels).max(initial=0.0)
        return total

    def table(self, site: int, levels: Levels) -> Array:
        """The part of the costs that depends on one site, for each of its levels: `(levels, 3)`."""
        total = np.zeros((len(self.sites[site].losses), MEMORY))
        for term in self.terms_of[site]:
            index = tuple(slice(None) if s == site else int(levels[s]) for s in term.sites)
            total += term.table[index]
        return total

    def options(self, levels: Sequence[int] | Levels) -> tuple[Option, ...]:
        """The options of a structure: those that all have, and those of the levels above 0."""
        return (*self.first, *self.chosen(levels))

    def chosen(self, levels: Sequence[int] | Levels) -> tuple[Option, ...]:
        """The options of the levels above 0."""
        return tuple(
            site.options[int(level) - 1]
            for site, level in zip(self.sites, levels, strict=True)
            if level > 0
        )
