"""`CandidatePlan`: a candidate as a value, before anything is cut or trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from saikei.budget import Budget, Costs
from saikei.codec import ToDict, to_jsonable
from saikei.edits import PruneChannels
from saikei.errors import InputError
from saikei.runs.candidate import Kind
from saikei.search.space import Point

# Measured times vary: aim below the limit, so that the result keeps it.
LATENCY_MARGIN = 0.9
SMALLEST_BATCH = 16
LARGEST_BATCH = 128
# With fewer steps an epoch, a small data set is undertrained after the default epochs.
STEPS = 60


@dataclass(frozen=True)
class Effort:
    """Settings that all trainings of a run share.

    Args:
        epochs: Epochs of each training.
        batch_size: Batch size of each training; `None` if a dataset has its own.
        seed: Seed of the run.

    Raises:
        InputError: If one of them is out of range.
    """

    epochs: int
    batch_size: int | None
    seed: int

    def __post_init__(self) -> None:
        at_least("epochs", self.epochs, 1)
        at_least("seed", self.seed, 0)
        if self.batch_size is not None:
            at_least("batch_size", self.batch_size, 1)


def at_least(name: str, value: Any, least: int) -> int:
    """The value, if it is a whole number of at least `least`.

    Raises:
        InputError: If it is not.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise InputError(f"{name}={value!r}: give a whole number of at least {least}.")
    return value


def batch_size_for(samples: int) -> int:
    """The largest power of two from 16 to 128 that still gives 60 steps an epoch.

    Args:
        samples: Number of samples in the training data.

    Example:
        >>> [batch_size_for(n) for n in (500, 1_077, 2_000, 50_000)]
        [16, 16, 32, 128]
    """
    size = LARGEST_BATCH
    while size > SMALLEST_BATCH and samples < STEPS * size:
        size //= 2
    return size


@dataclass(frozen=True)
class CandidatePlan(ToDict):
    """A trained candidate that is to be made.

    Args:
        name: Name of the candidate.
        kind: "pruned", "fresh" (the same structure from new weights) or "labels" (pruned, and
            trained without a teacher).
        parent: Name of the original to cut.
        like: Name of the candidate whose structure to use; `None` for a new cut.
        edit: The cut, as arguments of `PruneChannels`.
        learning_rate: The highest learning rate of the schedule.
        temperature: Temperature of the distillation.
        alpha: Weight of the true labels in the loss.
        epochs: Epochs of the training.
        batch_size: Batch size of the training; `None` if a dataset has its own.
        seed: Seed of the weights, the order of samples and random layers.
    """

    name: str
    kind: Kind
    parent: str
    like: str | None
    edit: Mapping[str, Any]
    learning_rate: float
    temperature: float
    alpha: float
    epochs: int
    batch_size: int | None
    seed: int


def plans_for(
    number: int, point: Point, edit: PruneChannels, effort: Effort, ablate: bool
) -> tuple[CandidatePlan, ...]:
    """Plans of one architecture: pruned, its rival, and optionally without a teacher.

    The rival is trained for as many epochs with the same distillation, but with a higher learning
    rate, as fresh weights need.

    Args:
        number: Number of the architecture, from 0.
        point: The values that the sampler chose.
        edit: The cut of the architecture.
        effort: Settings that all trainings share.
        ablate: Whether to train the pruned model on labels alone as well.
    """
    kinds: tuple[Kind, ...] = ("pruned", "fresh", "labels") if ablate else ("pruned", "fresh")
    stem = f"a{number + 1}"
    return tuple(
        CandidatePlan(
            name=f"{stem}-{kind}",
            kind=kind,
            parent=point.parent,
            like=None if kind == "pruned" else f"{stem}-pruned",
            edit=to_jsonable(edit.to_dict()),
            learning_rate=point.fresh_rate if kind == "fresh" else point.learning_rate,
            temperature=point.temperature,
            alpha=point.alpha,
            epochs=effort.epochs,
            batch_size=effort.batch_size,
            # The pruned model and the one without a teacher see samples in the same order, so
            # that they differ in the teacher only.
            seed=derived_seed(effort.seed, number, 1 if kind == "fresh" else 0),
        )
        for kind in kinds
    )


def edit_for(point: Point, budget: Budget, original: Costs, seed: int) -> PruneChannels:
    """The cut that brings a model to a share of the budget.

    Args:
        point: The values that the sampler chose.
        budget: Budget of the whole run.
        original: Costs that shares in the budget refer to.
        seed: Seed of random importance.
    """
    share = 1 / point.siblings
    if budget.latency is not None:
        share *= LATENCY_MARGIN
    return PruneChannels(
        keep=budget.scaled(share, original),
        importance=point.importance,
        scope=point.scope,
        seed=seed,
    )


def derived_seed(seed: int, *path: int) -> int:
    """A seed for one use, derived from the run's seed and independent of other draws."""
    return int(np.random.SeedSequence([seed, *path]).generate_state(1)[0] >> 1)
