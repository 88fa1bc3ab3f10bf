"""`Structure`: options of a model that keep a budget together, with what they lose and cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from saikei.costs import Counts
from saikei.edits.options import Option
from saikei.edits.recipe import Recipe
from saikei.search.propose.exact import Counted

Family = Literal[
    "as given", "knapsack", "uniform", "no depth", "depth", "swapped", "variant", "halfway"
]


@dataclass(frozen=True)
class Structure:
    """A structure that was proposed, without any training.

    Args:
        name: Unique among the structures that are proposed together.
        family: How its options were chosen: `"knapsack"` for the least loss over all options,
            `"no depth"` for the same without removing blocks, `"depth"` for blocks alone,
            `"uniform"` for the same share of every group of channels, `"swapped"` for levels that
            were exchanged by their real loss, `"variant"` for options that save nothing added to
            the best, `"halfway"` for a larger structure on the way to another, `"as given"` for
            the original.
        recipe: The edits that make it from the original; `None` for the original.
        options: The options that it takes; none for a structure of uniform shape, whose numbers of
            channels lie between those of the options.
        predicted: Its loss in the unit of the library, as the sum of those of its options.
        measured: Its loss in the same unit as it was measured, after one refit; `None` if not.
        costs: Its costs, counted on its graph.
        share: The share of the budget that it was proposed for.
        via: Name of the larger structure that should be trained first; `None` if it is reached in
            one step.
        step: The edits that make it from the structure `via`; `None` without it.
    """

    name: str
    family: Family
    recipe: Recipe | None
    options: tuple[Option, ...]
    predicted: float
    measured: float | None
    costs: Counts
    share: float
    via: str | None = None
    step: Recipe | None = None


def structure_of(name: str, family: Family, found: Counted, share: float) -> Structure:
    """A counted solution as a structure.

    Args:
        name: Its name.
        family: How its options were chosen.
        found: The solution.
        share: The share of the budget that it is for.
    """
    return Structure(
        name, family, found.recipe, found.options, found.solution.loss, None, found.costs, share
    )
