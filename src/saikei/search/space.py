"""What the search may vary, and where it starts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

# Of the settings tried on the seed network and Fashion-MNIST, these distilled best; the rate is
# for fresh weights. Those that are carried over are usually trained at a fifth of it.
FRESH_RATE = 3e-3
FRESH_TO_CARRIED = 5
LEARNING_RATE = FRESH_RATE / FRESH_TO_CARRIED
MOST_RATE = 1e-2
TEMPERATURE = 2.0
ALPHA = 0.5


@dataclass(frozen=True)
class Point:
    """One architecture and how to train it.

    Args:
        parent: the original to cut.
        siblings: how many models of its size the budget holds: it gets that share of it.
        importance: which channels go first.
        scope: whether all layers compete, or each keeps the same share.
        learning_rate: at its peak, for weights that are carried over.
        temperature: of the distillation.
        alpha: weight of the true labels in the distillation.
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

    def to_dict(self) -> dict[str, Any]:
        """By name, as Optuna has it."""
        return asdict(self)


def space(parents: Sequence[str]) -> Mapping[str, BaseDistribution]:
    """The distributions that a sampler draws a `Point` from.

    Args:
        parents: names of the originals.
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
    """Where a search starts, before the sampler has anything to go by.

    Each original at the whole budget, then at a half and at a third of it, where the pruned
    model and its rival are siblings that can be averaged within the budget; a last third, cut
    evenly, is a sibling of another shape.

    Args:
        parents: names of the originals.
    """
    shares = [Point(parent, siblings) for siblings in (1, 2, 3) for parent in parents]
    return (*shares, Point(parents[0], 3, scope="layer"))
