"""`Member` and `Ensemble`: what can be combined, and what was combined."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import keras

from saikei.fusion.base import Fusion, Head
from saikei.runs.candidate import Cost
from saikei.scoring.labelled import Outputs
from saikei.scoring.score import Score

Method = Literal["single", "average", "learned", "greedy", "stack", "cascade", "soup"]


@dataclass(frozen=True, eq=False)
class Member:
    """A trained candidate, or a given model, that may become part of an ensemble.

    Args:
        name: Unique name of the candidate.
        family: The family that its plan belongs to, such as `"knapsack"`.
        cost: The cost of its model.
        outputs: Its predictions of the judge's rows, one array `(n, …)` for each output.
        model: Loads its model. Only soups and `build` call it.
        structure: A key that members share when their models differ in weights alone, such as a
            digest of parent and recipe. Only members with one key are merged into a soup; an empty
            key is shared with nobody.
        inputs: The names of the inputs that its model reads; empty when all members read the same
            inputs.
    """

    name: str
    family: str
    cost: Cost
    outputs: Outputs = field(repr=False)
    model: Callable[[], keras.Model] = field(repr=False)
    structure: str = ""
    inputs: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Ensemble:
    """One or several members as one model that is not built yet.

    Args:
        method: How the members are combined; `"single"` is one member as it is.
        members: Their names. In a cascade in the order in which they run.
        weights: One weight for each member of an average; empty for other methods.
        fusion: The fusion that makes the model; `None` for a single member.
        head: The function of the members' predictions, fitted to all rows of validation; `None`
            for a single member and for a soup.
        score: The score on validation. Where weights, a meta-learner or thresholds were fitted,
            each row is scored by a fit to other rows.
        outputs: The predictions that `score` belongs to, one array `(n, …)` for each output.
        cost: The sum of the members' costs, of which the exact cost of the built model is lower
            where members share layers. Of a cascade with the mean over rows that did not choose
            the thresholds.
        complexity: As `Fusion.complexity`: 0 for a single member, 1 when nothing is fitted.
        multimodal: Whether its members read different inputs, so that the model takes a dictionary
            of all of them.
    """

    method: Method
    members: tuple[str, ...]
    weights: tuple[float, ...]
    fusion: Fusion | None
    head: Head | None = field(repr=False)
    score: Score
    outputs: Outputs = field(repr=False)
    cost: Cost
    complexity: int
    multimodal: bool = False

    def to_dict(self) -> dict[str, Any]:
        """What the ensemble is made of and how good it is, JSON-ready, without predictions."""
        return {
            "method": self.method,
            "members": list(self.members),
            "weights": list(self.weights),
            "score": self.score.to_dict(),
            "complexity": self.complexity,
            "head": {} if self.head is None else self.head.to_dict(),
        }
