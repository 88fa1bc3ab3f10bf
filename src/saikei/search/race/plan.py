"""`Entry`, `Plan`, `RungTask` and `RungResult`: a candidate, a part of its training, its result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from saikei.codec import Jsonable
from saikei.runs.candidate import Cost
from saikei.scoring.labelled import Outputs
from saikei.scoring.score import Score
from saikei.training.parts import TrainingSettings, TrainingState

Weights = Literal["kept", "fresh"]


@dataclass(frozen=True)
class Entry:
    """What takes part in the race, before it is chosen how it is trained.

    Args:
        family: What it is compared with when the last of a kind is kept safe, such as
            `"knapsack"`, `"uniform"`, `"depth"` or `"fresh"`.
        parent: Name of the given model that its structure comes from.
        recipe: The edits that make its structure, JSON-ready; `None` for the parent's own.
        weights: `"kept"` for the parent's weights, refitted after the edits, or `"fresh"` for new
            ones.
        teacher: Name of the teacher in `Shared.teachers`; `None` to learn from labels alone.
        via: The edits that make a larger structure, which is trained in the first rung before the
            rest is cut; `None` to cut all at once.
        step: The edits that lead from there to the structure; `None` without `via`.
    """

    family: str
    parent: str
    recipe: Mapping[str, Any] | None
    weights: Weights = "kept"
    teacher: str | None = None
    via: Mapping[str, Any] | None = None
    step: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Plan(Jsonable):
    """A candidate that is to be trained: a value, from which it can be made again.

    Args:
        name: Unique name of the candidate.
        family: See `Entry`.
        parent: See `Entry`.
        recipe: See `Entry`.
        weights: See `Entry`.
        teacher: See `Entry`.
        settings: How it is trained.
        seed: Seed of new weights, the order of rows and random layers.
        via: See `Entry`.
        step: See `Entry`.
        raises_rate: Whether the learning rate is raised by how much a cut has damaged the weights.
    """

    name: str
    family: str
    parent: str
    recipe: Mapping[str, Any] | None
    weights: Weights
    teacher: str | None
    settings: TrainingSettings
    seed: int
    via: Mapping[str, Any] | None = None
    step: Mapping[str, Any] | None = None
    raises_rate: bool = False


@dataclass(frozen=True)
class RungTask:
    """A part of the training of a candidate.

    Args:
        plan: The candidate.
        begin: Number of epochs that are trained already.
        end: Number of epochs that are trained afterwards.
        total: Number of epochs that the learning rate's schedule is for.
        state: The state after the epoch `begin`; `None` at the very beginning.
        cost: Costs of the model, if they are known; `None` measures them.
    """

    plan: Plan
    begin: int
    end: int
    total: int
    state: TrainingState | None = field(default=None, repr=False)
    cost: Cost | None = None


@dataclass(frozen=True, eq=False)
class RungResult:
    """A candidate after a part of its training.

    Args:
        state: The state after the last epoch, with the best weights so far; `None` where it was
            dropped because nothing continues from it.
        outputs: The predictions of the best weights on validation, one array `(n, …)` for each
            output.
        score: Their score on validation.
        before: The score on validation before any training; `None` after the first part.
        curves: For each logged quantity, its value after each epoch of this part.
        seconds: Duration of this part.
        cost: Costs of the model.
    """

    state: TrainingState | None = field(repr=False)
    outputs: Outputs = field(repr=False)
    score: Score
    before: Score | None
    curves: Mapping[str, tuple[float, ...]] = field(repr=False)
    seconds: float
    cost: Cost
