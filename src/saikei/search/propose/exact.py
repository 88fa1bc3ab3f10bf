"""Structures that keep a budget when their graph is counted, not only as predicted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from saikei.budget import Budget
from saikei.channels import ChannelMap
from saikei.costs import Counts, count_costs, measure_latency
from saikei.edits.options import Option, stitch
from saikei.edits.recipe import Recipe
from saikei.errors import EditError
from saikei.graph import Graph, build
from saikei.search.propose.path import Solution
from saikei.search.propose.space import AXES, Array

# How often targets are corrected by what was counted.
TRIES = 6
# A structure whose costs are this near to a limit is not tried to be made larger.
NEAR = 0.97


@dataclass(frozen=True)
class Counted:
    """A solution with its graph's costs.

    Args:
        solution: The levels.
        options: The options of the structure.
        recipe: The edits; `None` where there are no options.
        costs: What the graph costs.
    """

    solution: Solution
    options: tuple[Option, ...]
    recipe: Recipe | None
    costs: Counts


@dataclass
class Counter:
    """Counts graphs, each set of options once.

    Args:
        graph: The original.
        budget: The budget, whose latency is measured if it is limited.
        slower: What a measured latency is multiplied by, as a margin.
        known: What was counted, by the options.
    """

    graph: Graph
    budget: Budget
    slower: float = 1.0
    known: dict[str, tuple[Recipe | None, Counts]] = field(default_factory=dict)

    def __call__(self, options: tuple[Option, ...]) -> tuple[Recipe | None, Counts]:
        """The recipe of options and what the graph costs with them."""
        key = repr(options)
        if key not in self.known:
            recipe, graph = stitch(self.graph, options) if options else (None, self.graph)
            self.known[key] = recipe, self.costs(graph)
        return self.known[key]

    def costs(self, graph: Graph) -> Counts:
        """What a graph costs, with its latency if the budget limits it."""
        counts = count_costs(ChannelMap.of_whole(replace(graph, sizes=self.graph.sizes)))
        if self.budget.latency is None:
            return counts
        milliseconds = measure_latency(build(graph), self.budget.batch_size, sizes=graph.sizes)
        # Rounded, since in floating point 1.1 times 0.45 is more than 0.495.
        milliseconds = round(self.slower * milliseconds, 6)
        return replace(counts, latency=milliseconds, batch_size=self.budget.batch_size)


def counted_within(
    solve: Callable[[Array], Solution | None],
    counter: Counter,
    original: Counts,
) -> Counted | None:
    """The solution of the least predicted loss whose graph keeps the budget.

    Args:
        solve: Gives a solution within targets, in the order of `AXES`.
        counter: Counts the graph of options; it has the budget.
        original: What the original costs.

    Returns:
        The solution, or `None` where none was found.
    """
    budget = counter.budget
    targets = targets_of(budget, original)
    limits = targets.copy()
    best: Counted | None = None
    options: tuple[Option, ...] | None = None
    for _ in range(TRIES):
        found = solve(targets)
        last = options
        options = None if found is None else found.space.options(found.levels)
        if found is None or options is None or options == last:
            break
        try:
            recipe, costs = counter(options)
        except EditError:
            # Options that can each be applied alone may leave nothing for the others to change.
            break
        fits = budget.fits(costs, original)
        if fits and (best is None or found.loss < best.solution.loss):
            best = Counted(found, options, recipe, costs)
        reached = _reached(costs, original, budget)
        used = np.max(reached / limits)
        if fits and (used >= NEAR or not options):
            break
        corrected = limits * np.maximum(found.costs, 1e-9) / np.maximum(reached, 1e-9)
        # A target that was missed is lowered at least a little, so that the next is another one.
        corrected = np.where(reached > limits, np.minimum(corrected, 0.99 * targets), corrected)
        if np.allclose(corrected, targets, rtol=1e-3):
            break
        targets = np.where(np.isfinite(limits), corrected, np.inf)
    return best


def targets_of(budget: Budget, original: Counts) -> Array:
    """The limits in the order of `AXES`, infinite where there is none; a latency limits MACs."""
    limits = budget.limits(original)
    targets = np.array([limits.get(axis, np.inf) for axis in AXES])
    if "latency" in limits:
        share = limits["latency"] / budget.cost(original, "latency")
        targets[0] = min(targets[0], max(share, 1e-6) * original.macs)
    return np.asarray(np.maximum(targets, 1e-9))


def _reached(costs: Counts, original: Counts, budget: Budget) -> Array:
    """What was counted, in the order of `AXES`; a latency as the MACs of that share."""
    reached = np.array([float(getattr(costs, axis)) for axis in AXES])
    if budget.latency is not None:
        share = budget.cost(costs, "latency") / budget.cost(original, "latency")
        reached[0] = max(reached[0] if budget.macs is not None else 0.0, share * original.macs)
    return reached
