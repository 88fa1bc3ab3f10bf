"""The weighted mean of the members' outputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from saikei.batches import Array
from saikei.fusion.average.greedy import Selection
from saikei.fusion.average.weights import FittedWeights
from saikei.fusion.base import listed
from saikei.fusion.evidence import MemberOutputs
from saikei.fusion.masks import all_with_masks
from saikei.fusion.members import numbered_name


@dataclass(frozen=True)
class WeightedMean:
    """The weighted mean of the members' outputs.

    Args:
        weights: One for each member, with sum 1.
        fitted: How the weights were fitted; `None` where they are equal or given.
    """

    weights: tuple[float, ...]
    fitted: FittedWeights | Selection | None = None

    @property
    def used(self) -> tuple[int, ...]:
        """The indices of the members whose weight is not 0."""
        return tuple(index for index, weight in enumerate(self.weights) if weight > 0)

    def of(self, indices: Sequence[int]) -> WeightedMean:
        """The mean of some members; the weights of the others are 0."""
        return WeightedMean(tuple(self.weights[index] for index in indices))

    def predict(self, predictions: MemberOutputs) -> tuple[Array, ...]:
        """One array for each output."""
        return tuple(
            np.average(np.stack(parts), axis=0, weights=self.weights)
            for parts in zip(*predictions.outputs, strict=True)
        )

    def connect(self, predictions: MemberOutputs, name: str = "average") -> tuple[Any, ...]:
        """The weighted mean in a graph; members of weight 0 are left out."""
        used = [(o, w) for o, w in zip(predictions.outputs, self.weights, strict=True) if w > 0]
        weights = [weight for _, weight in used]
        return tuple(
            _weighted_sum(parts, weights, numbered_name("{}", index, len(used[0][0])), name)
            for index, parts in enumerate(zip(*(member for member, _ in used), strict=True))
        )

    @property
    def summary(self) -> str:
        """The weights."""
        return f"weights {listed(self.weights)}"

    def to_dict(self) -> dict[str, Any]:
        """What was fitted, or the weights, JSON-ready."""
        return self.fitted.to_dict() if self.fitted else {"weights": list(self.weights)}


def _weighted_sum(parts: Sequence[Any], weights: Sequence[float], form: str, name: str) -> Any:
    if len(parts) == 1:
        return parts[0]
    prefix = "" if name == "average" else f"{name}_"
    parts = all_with_masks(parts, form.format(f"{prefix}masked_{{}}"))
    scaled = [
        keras.layers.Rescaling(weight, name=form.format(f"{prefix}weight_{number}"))(part)
        for number, (part, weight) in enumerate(zip(parts, weights, strict=True), start=1)
    ]
    return keras.layers.Add(name=form.format(name))(scaled)
