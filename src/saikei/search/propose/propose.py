"""From a library to structures under a budget, without training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np

from saikei.budget import Budget
from saikei.channels import ChannelMap, map_channels
from saikei.costs import Counts
from saikei.edits.options import Option, stitch
from saikei.errors import BudgetError, EditError
from saikei.graph import Graph
from saikei.search.library import Library, Measured
from saikei.search.propose.exact import Counted, Counter, targets_of
from saikei.search.propose.halfway import DEEP, halfway
from saikei.search.propose.path import solution
from saikei.search.propose.proposer import Proposer
from saikei.search.propose.reality import (
    Agreement,
    Measure,
    agreement,
    fit_weights,
    parts_of,
    swapped,
)
from saikei.search.propose.space import Levels
from saikei.search.propose.structure import Family, Structure, structure_of
from saikei.search.propose.uniform import least_blocks, uniform_options

# Shares of the budget that structures are proposed for: the whole, and what each of two to four
# siblings has.
SHARES = (1.0, 1 / 2, 1 / 3, 1 / 4)
# Times that the real loss of exchanged levels is measured.
SWAPS = 4
# Shares of the budget below which real losses are not measured: before training, deep cuts have
# little left of what the original computes.
MEASURED = 0.5


@dataclass(frozen=True)
class Proposal:
    """Structures under a budget.

    Args:
        structures: The structures, those for the whole budget first. A larger structure from which
            another one is reached in a second step comes before that one.
        weights: For each method, what its losses were multiplied by after real losses were
            measured; empty without.
        agreement: Predicted and real losses of the structures that were measured; `None` without.
    """

    structures: tuple[Structure, ...]
    weights: dict[str, float]
    agreement: Agreement | None


def propose(
    model: keras.Model | Graph,
    library: Library,
    budget: Budget,
    *,
    data: Any = None,
    measure: Measure | None = None,
    swaps: int = SWAPS,
    shares: Sequence[float] = SHARES,
    uniform: bool = False,
    slower: float = 1.0,
) -> Proposal:
    """Structures under a budget, for the whole of it and for shares of it.

    For each share: the least predicted loss over all options, the same without removing blocks,
    removed blocks alone, and uniform shape, also with fewer blocks. With `measure`, the real losses
    of the larger ones give each method a weight, the best is searched again, and levels of it are
    exchanged where the real loss falls.

    Args:
        model: The model, or its graph.
        library: The library of the model.
        budget: The limits.
        data: As in `Proposer`.
        measure: Gives the real loss of options: the divergence of the stitched and refitted model.
        swaps: How many times exchanged levels are measured.
        shares: The shares of the budget.
        uniform: Whether only structures of uniform shape are proposed.
        slower: As in `Proposer`.

    Raises:
        BudgetError: When no structure keeps the budget; the message has the smallest value that
            can be reached.
    """
    proposer = Proposer(model, library, data, slower)
    original = proposer.original(budget)
    proposer.check_reachable(budget, original)
    made = _Proposed(proposer, budget, original, measure)
    for share in shares:
        if uniform:
            made.add_uniform(share)
        else:
            made.add_share(share)
    if uniform:
        if not made.structures:
            raise BudgetError(
                f"No structure with the same width in all blocks keeps the budget '{budget}': "
                "raise it, or leave out uniform."
            )
        return Proposal(tuple(made.structures), {}, None)
    weights: dict[str, float] = {}
    found = None
    if measure is not None and made.structures:
        weights = made.learn()
        made.add_again(weights)
        made.swap(swaps)
        # What is lost between the options of the library is not predicted by them.
        measured = [
            s
            for s in made.structures
            if s.measured is not None and s.options and s.family != "uniform"
        ]
        found = agreement(
            library, [s.options for s in measured], [s.measured or 0.0 for s in measured]
        )
    made.add_variants()
    return Proposal(tuple(made.structures), weights, found)


class _Proposed:
    """The structures that are proposed so far."""

    def __init__(
        self, proposer: Proposer, budget: Budget, original: Counts, measure: Measure | None
    ) -> None:
        self.proposer, self.budget, self.original = proposer, budget, original
        self.measure = measure
        self.memory = budget.memory is not None
        self.structures: list[Structure] = []
        self.best: Counted | None = None

    def add_share(self, share: float) -> None:
        """The structures for one share of the budget."""
        proposer, original, counter = self.proposer, self.original, self._counter(share)
        best = proposer.best(counter, original, proposer.spaces(memory=self.memory))
        if share == 1.0:
            self.best = best
        self._add("knapsack", best, share, counter)
        if proposer.tables.depth:
            self._add(
                "no depth",
                proposer.best(counter, original, proposer.spaces(memory=self.memory, depths=[0])),
                share,
                counter,
            )
            self._add("depth", self._blocks_alone(counter), share, counter)
        self._add_uniform(counter, share)

    def add_uniform(self, share: float) -> None:
        """The structures of uniform shape for one share of the budget."""
        self._add_uniform(self._counter(share), share)

    def _counter(self, share: float) -> Counter:
        """Counts what recipes cost, against one share of the budget."""
        whole = self.budget
        return self.proposer.counter(whole if share == 1.0 else whole.scaled(share, self.original))

    def _blocks_alone(self, counter: Counter) -> Counted | None:
        """The fewest blocks whose removal alone keeps the budget."""
        for depth in range(1, self.proposer.tables.depth + 1):
            space = self.proposer.space(depth, memory=self.memory)
            options = space.first
            try:
                recipe, costs = counter(options)
            except EditError:
                continue
            if counter.budget.fits(costs, self.original):
                return Counted(solution(space, space.origin), options, recipe, costs)
        return None

    def _add_uniform(self, counter: Counter, share: float) -> None:
        """Uniform shapes: of all blocks and, for the whole budget, of three quarters of them."""
        proposer = self.proposer
        self._keep_uniform(counter, share, proposer.map, ())
        parts = least_blocks(proposer.graph, proposer.library) if share == 1.0 else ()
        if parts:
            _, fewer = stitch(proposer.graph, [part.option for part in parts])
            channel_map = map_channels(replace(fewer, sizes=proposer.graph.sizes))
            self._keep_uniform(counter, share, channel_map, parts)

    def _keep_uniform(
        self, counter: Counter, share: float, channel_map: ChannelMap, gone: tuple[Measured, ...]
    ) -> None:
        """The widest uniform cut of a graph without some parts."""
        found = uniform_options(channel_map, self.proposer.library, counter.budget, self.original)
        if found is None or not (found[0] or gone):
            return
        options = (*(part.option for part in gone), *found[0])
        recipe, costs = counter(options)
        if counter.budget.fits(costs, self.original):
            name = _name("uniform", share) + ("-fewer-blocks" if gone else "")
            predicted = found[1] + sum(part.loss for part in gone)
            self._keep(Structure(name, "uniform", recipe, options, predicted, None, costs, share))

    def _add(
        self, family: Family, found: Counted | None, share: float, counter: Counter
    ) -> Structure | None:
        if found is None:
            return None
        family = family if found.options else "as given"
        structure = structure_of(_name(family, share), family, found, share)
        if any(repr(known.options) == repr(structure.options) for known in self.structures):
            return None
        for axis in ("macs", "params", "bytes"):
            reached = getattr(found.costs, axis) / max(getattr(self.original, axis), 1)
            if axis in counter.budget.given() and reached < DEEP and found.options:
                return self._keep(self._in_steps(structure, found, counter, reached, axis))
        return self._keep(structure)

    def _in_steps(
        self, structure: Structure, found: Counted, counter: Counter, reached: float, axis: str
    ) -> Structure:
        """The structure, after the one halfway to it is kept too."""
        middle = halfway(found, counter, reached, axis)
        if middle is None:
            return structure
        options, recipe, costs, step = middle
        name = f"{structure.name}-halfway"
        predicted = sum(parts_of(self.proposer.library, options).values())
        self.structures.append(
            Structure(name, "halfway", recipe, options, predicted, None, costs, structure.share)
        )
        return replace(structure, via=name, step=step)

    def _keep(self, structure: Structure) -> Structure:
        if self.measure is not None and structure.options and structure.share >= MEASURED:
            structure = replace(structure, measured=self.measure(structure.options))
        self.structures.append(structure)
        return structure

    def learn(self) -> dict[str, float]:
        """A weight for each method, from the real losses."""
        known = [
            (parts_of(self.proposer.library, s.options), s.measured)
            for s in self.structures
            if s.measured is not None and s.family != "uniform"
        ]
        known = [(parts, real) for parts, real in known if parts]
        return fit_weights([p for p, _ in known], [real or 0.0 for _, real in known])

    def add_again(self, weights: dict[str, float]) -> None:
        """The best structure for the whole budget by the weighted losses, if it is another one."""
        counter = self.proposer.counter(self.budget)
        found = self.proposer.best(
            counter, self.original, self.proposer.spaces(weights, self.memory)
        )
        if found is None:
            return
        renamed = structure_of("reweighted", "knapsack", found, 1.0)
        if all(repr(known.options) != repr(found.options) for known in self.structures):
            kept = self._keep(renamed)
            first = next((s for s in self.structures if s.family == "knapsack"), kept)
            if (kept.measured or 0.0) < (first.measured or 0.0):
                self.best = found

    def swap(self, tries: int) -> None:
        """The best structure with levels exchanged by their real loss, if that is better."""
        best, measure = self.best, self.measure
        if best is None or measure is None or not best.options:
            return
        real = next(
            (s.measured for s in self.structures if repr(s.options) == repr(best.options)), None
        )
        if real is None:
            return
        counter = self.proposer.counter(self.budget)
        space = best.solution.space

        def loss(levels: Levels) -> float | None:
            options = space.options(levels)
            try:
                _, costs = counter(options) if options else (None, self.original)
            except EditError:
                return None
            if not options or not self.budget.fits(costs, self.original):
                return None
            return measure(options)

        # Predicted costs may be above the limits where those that are counted are not.
        limits = np.maximum(targets_of(self.budget, self.original), best.solution.costs)
        found, lowest = swapped(best.solution, real, limits, loss, tries)
        if found is not best.solution:
            options = space.options(found.levels)
            recipe, costs = counter(options)
            self.best = Counted(found, options, recipe, costs)
            made = structure_of("swapped-1", "swapped", self.best, 1.0)
            self.structures.append(replace(made, measured=lowest))

    def add_variants(self) -> None:
        """The best structure with the options of one method that cost nothing, for each method."""
        best = self.best
        if best is None:
            return
        taken = {option.site for option in best.options}
        gone = {n for option in best.solution.space.first for n in option.layers}
        counter = self.proposer.counter(self.budget)
        used = {option.method for option in best.options}
        for method, options in _free_options(self.proposer.library, taken, gone).items():
            if method in used:
                continue
            both = (*best.options, *options)
            try:
                recipe, costs = counter(both)
            except EditError:
                continue
            if self.budget.fits(costs, self.original):
                predicted = best.solution.loss + sum(
                    parts_of(self.proposer.library, options).values()
                )
                name = f"{_name('variant', 1.0)}-{method}"
                self._keep(Structure(name, "variant", recipe, both, predicted, None, costs, 1.0))


def _free_options(
    library: Library, taken: set[str], gone: set[str]
) -> dict[str, tuple[Option, ...]]:
    """For each method with options that save nothing: the one of least loss at each site."""
    found: dict[str, list[Option]] = {}
    for site, entries in library.sites.items():
        entries = tuple(e for e in entries if not set(e.option.layers) & gone)
        edits = [entry.option.edit for entry in entries]
        if site in taken or not edits or any(one.one_by_one or one.replaces for one in edits):
            continue
        if any(_saves(e.costs, library.original) for e in entries):
            continue
        best = min(entries, key=lambda e: e.loss)
        found.setdefault(best.option.method, []).append(best.option)
    return {method: tuple(options) for method, options in found.items()}


def _saves(costs: Counts, original: Counts) -> bool:
    return any(getattr(costs, a) < getattr(original, a) for a in ("macs", "params", "bytes"))


def _name(family: str, share: float) -> str:
    return f"{family.replace(' ', '-')}-{round(1 / share)}"
