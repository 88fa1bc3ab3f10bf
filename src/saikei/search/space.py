"""The search space, and the points that a search starts with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from saikei.codec import ToDict

# These values distilled best in trials on Fashion-MNIST. `FRESH_RATE` is for fresh weights;
# weights that are carried over start with a fifth of it.
FRESH_RATE = 3e-3
FRESH_TO_CARRIED = 5
LEARNING_RATE = FRESH_RATE / FRESH_TO_CARRIED
MOST_RATE = 1e-2
TEMPERATURE = 2.0
ALPHA = 0.5


@dataclass(frozen=True)
class Point(ToDict):
    """One architecture and how to train it.

    Args:
        parent: Name of the original to cut.
        siblings: How many models of its size fit the budget together: 3 for a third of the budget.
        importance: Importance by which channels are removed; see `PruneChannels`.
        scope: `"global"` if the channels of all layers compete, `"layer"` if each layer keeps the
            same share.
        learning_rate: The highest learning rate, for weights that are carried over.
        temperature: Temperature of the distillation.
        alpha: Weight of the true labels in the distillation.
    """

    parent: str
    siblings: int
    importance: str = "reconstruction"
    scope: Literal["global", "layer"] = "global"
    learning_rate: float = LEARNING_RATE
    temperature: float = TEMPERATURE
    alpha: float = ALPHA

    @property
    def fresh_rate(self) -> float:
        """The learning rate for the same structure from fresh weights."""
        return min(FRESH_TO_CARRIED * self.learning_rate, MOST_RATE)


def space(parents: Sequence[str]) -> Mapping[str, BaseDistribution]:
    """The distributions that a sampler draws a `Point` from.

    Args:
        parents: Names of the originals.
    """
    return {
        "parent": CategoricalDistribution(list(parents)),
        "siblings": IntDistribution(1, 4),
        "importance": CategoricalDistribution(["reconstruction", "magnitude", "random"]),
        "scope": CategoricalDistribution(["global", "layer"]),
        "learning_rate": FloatDistribution(2e-5, 3e-3, log=True),
        "temperature": FloatDistribution(1.0, 8.0),
        "alpha": FloatDistribution(0.1, 0.9),
    }


def first_points(parents: Sequence[str]) -> tuple[Point, ...]:
    """The first points of a search, before the sampler has results to learn from.

    Each original at the whole budget, then at a half and a third of it, such that the pruned
    model and its rival can be averaged within the budget. The last point is a third of the budget
    with the same share of every layer, for a sibling with another structure.

    Args:
        parents: Names of the originals.
    """
    shares = [Point(parent, siblings) for siblings in (1, 2, 3) for parent in parents]
    return (*shares, Point(parents[0], 3, scope="layer"))
