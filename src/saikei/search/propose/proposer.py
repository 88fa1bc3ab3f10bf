"""`Proposer`: a model with its library, ready for any budget; and `resolve` for one budget."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import keras
import numpy as np

from saikei.budget import Budget
from saikei.channels import map_channels
from saikei.costs import Counts, check_countable, count_costs, measure_latency
from saikei.costs.per_call import ADDITIVE
from saikei.edits.base import with_sizes
from saikei.edits.recipe import Recipe
from saikei.errors import EditError
from saikei.graph import Graph, build, read
from saikei.search.library import Library, Measured
from saikei.search.propose.exact import Counted, Counter, counted_within, targets_of
from saikei.search.propose.path import Front, Solution, descend_to, front
from saikei.search.propose.several import near_limits, within_limits
from saikei.search.propose.space import AXES, Array, Space
from saikei.search.propose.structure import Structure, structure_of
from saikei.search.propose.tables import Tables

# So many numbers of removed blocks are looked at.
DEPTHS = 12
# A quick solution is taken to lose at most so many times what the best of its space loses.
MARGIN = 1.25


class Proposer:
    """A model with its library, ready for any budget.

    Args:
        model: The model that the library is of, or its graph.
        library: The library.
        data: For a model with axes of unknown size: what `keras.Model.fit` takes, of the size that
            costs are counted for. `None` takes the size that is assumed.
        slower: What the measured latency of a structure is multiplied by, as a margin: measured
            again, it is another one.
    """

    def __init__(
        self,
        model: keras.Model | Graph,
        library: Library,
        data: Any = None,
        slower: float = 1.0,
    ) -> None:
        self.library = library
        self.slower = slower
        self.graph = model if isinstance(model, Graph) else with_sizes(read(model), model, data)
        self.map = map_channels(self.graph)
        self.tables = Tables(self.map, library)
        self._spaces: dict[tuple[int, str, bool, tuple[str, str] | None], Space] = {}
        self._counted: dict[int | None, dict[str, tuple[Recipe | None, Counts]]] = {}
        self._fronts: dict[str, Front] = {}

    def spaces(
        self,
        weights: Mapping[str, float] | None = None,
        memory: bool = False,
        depths: Sequence[int] | None = None,
    ) -> list[Space]:
        """The spaces after each number of removed blocks, with old layers and with replaced ones.

        Args:
            weights: As in `space`.
            memory: As in `space`.
            depths: The numbers of removed blocks; `None` for all, evenly chosen if many.
        """
        if depths is None:
            every = self.tables.depth + 1
            depths = [round(n) for n in np.linspace(0, every - 1, min(every, DEPTHS))]
        replaced = (None, *self.tables.replaced)
        return [self.space(n, weights, memory, new) for n in depths for new in replaced]

    def space(
        self,
        depth: int,
        weights: Mapping[str, float] | None = None,
        memory: bool = False,
        replaced: Measured | None = None,
    ) -> Space:
        """The space after a number of removed blocks.

        Args:
            depth: The number of blocks.
            weights: For methods by name, what their losses are multiplied by; 1 if not given.
            memory: Whether the memory of structures is predicted too.
            replaced: An option that replaces layers, which all structures have; `None` for none.
        """
        new = None if replaced is None else (replaced.option.site, replaced.option.change)
        key = depth, repr(sorted((weights or {}).items())), memory, new
        if key not in self._spaces:
            self._spaces[key] = self.tables.space(depth, weights, memory, replaced)
        return self._spaces[key]

    def path(self, axis: str = "macs") -> Front:
        """The whole front along one cost, as predicted, from one descent for each depth.

        Args:
            axis: `"macs"`, `"params"` or `"bytes"`.
        """
        if axis not in self._fronts:
            self._fronts[axis] = front(self.spaces(), axis)
        return self._fronts[axis]

    def original(self, budget: Budget) -> Counts:
        """What the original costs, with its latency if the budget limits it."""
        check_countable(self.graph, budget)
        counts = count_costs(self.map)
        if budget.latency is None:
            return counts
        milliseconds = measure_latency(build(self.graph), budget.batch_size, sizes=self.graph.sizes)
        return replace(counts, latency=milliseconds, batch_size=budget.batch_size)

    def check_reachable(self, budget: Budget, original: Counts) -> None:
        """Refuse a budget that no structure of the library keeps.

        Args:
            budget: The budget.
            original: What the original costs.

        Raises:
            BudgetError: With the smallest values that can be reached.
        """
        reached = [original, *self._smallest(self.counter(budget), original)]
        if any(budget.fits(costs, original) for costs in reached):
            return
        least = {n: min(budget.cost(costs, n) for costs in reached) for n in budget.given()}
        methods = {e.option.method for e in (*self.library.entries, *self.library.depth)}
        by = ", ".join(sorted(methods)) or "no edit"
        by = f"{by} together" if len(methods) > 1 else by
        raise budget.unreachable(replace(original, **least), original, by)  # type: ignore[arg-type]

    def _smallest(self, counter: Counter, original: Counts) -> Iterator[Counts]:
        """The costs at the end of the path towards the limits, and of those towards each alone."""
        targets = targets_of(counter.budget, original)
        aims = [targets]
        for axis in np.flatnonzero(np.isfinite(targets)):
            aim = np.full(len(AXES), np.inf)
            aim[axis] = 1e-9
            aims.append(aim)
        memory = counter.budget.memory is not None
        small = min(self.tables.replaced, key=lambda e: e.costs.params, default=None)
        replaced = [None] if small is None else [None, small]
        for depth, new in itertools.product(sorted({0, self.tables.depth}), replaced):
            space = self.space(depth, memory=memory, replaced=new)
            for aim in aims:
                if options := space.options(descend_to(space, aim)):
                    with contextlib.suppress(EditError):
                        yield counter(options)[1]

    def counter(self, budget: Budget) -> Counter:
        """Counts graphs for a budget; what was counted for others is known."""
        timed = None if budget.latency is None else budget.batch_size
        return Counter(self.graph, budget, self.slower, self._counted.setdefault(timed, {}))

    def best(self, counter: Counter, original: Counts, spaces: Sequence[Space]) -> Counted | None:
        """The structure of the least predicted loss in some spaces that keeps the budget.

        Args:
            counter: Counts graphs; it has the budget.
            original: What the original costs.
            spaces: The spaces.

        Returns:
            The structure, or `None` where none is found.
        """
        targets = targets_of(counter.budget, original)
        first = [(near_limits(space, targets), space) for space in spaces]
        promising = sorted(
            ((found.loss, number) for number, (found, _) in enumerate(first) if found is not None)
        )
        best: Counted | None = None
        for loss, number in promising:
            if best is not None and loss >= MARGIN * best.solution.loss:
                break
            space = first[number][1]
            found = counted_within(partial(within_limits, space), counter, original)
            if found is not None and (best is None or found.solution.loss < best.solution.loss):
                best = found
        return best

    def quick(self, counter: Counter, original: Counts) -> Counted | None:
        """As `best` over all spaces, from the front where there is one limit on what is counted.

        Args:
            counter: Counts graphs; it has the budget.
            original: What the original costs.
        """
        limited = tuple(counter.budget.given())
        if len(limited) > 1 or limited[0] not in ADDITIVE:
            return self.best(
                counter, original, self.spaces(memory=counter.budget.memory is not None)
            )
        along = self.path(limited[0])
        column = AXES.index(limited[0])

        def within(limits: Array) -> Solution | None:
            return along.within(float(limits[column]))

        return counted_within(within, counter, original)


def resolve(
    library: Library, model: keras.Model | Graph, budget: Budget, data: Any = None
) -> Structure:
    """The structure of a model for a budget, from its library alone; nothing is trained.

    Args:
        library: The library of the model.
        model: The model, or its graph.
        budget: The limits.
        data: As in `Proposer`.

    Raises:
        BudgetError: When no structure of the library keeps the budget; the message has the
            smallest value that can be reached.
    """
    proposer = Proposer(model, library, data)
    return resolved(proposer, budget)


def resolved(proposer: Proposer, budget: Budget) -> Structure:
    """As `resolve`, for one of several budgets.

    Args:
        proposer: The model with its library.
        budget: The limits.

    Raises:
        BudgetError: As in `resolve`.
    """
    original = proposer.original(budget)
    found = proposer.quick(proposer.counter(budget), original)
    if found is None:
        proposer.check_reachable(budget, original)
        raise budget.unreachable(original, original, "the options of the library together")
    return structure_of("resolved", "knapsack", found, 1.0)
