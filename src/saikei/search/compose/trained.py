"""Ensembles that have to be trained: series of members, each trained on the errors so far."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import keras

from saikei.budget import Budget
from saikei.fusion.base import TrainedFusion
from saikei.fusion.boost import Boost
from saikei.runs.candidate import Cost
from saikei.scoring.labelled import Labelled
from saikei.search.compose.ensemble import Member
from saikei.search.compose.sets import Pool
from saikei.search.compose.spend import together

MOST_ROUNDS = 4


@dataclass(frozen=True)
class TrainedEnsemble:
    """A fusion that spends epochs, as a plan.

    Args:
        fusion: The fusion, with its number of epochs.
        members: The names of the members that it starts from.
        epochs: How many epochs it trains in all.
        cost: The cost of the fused model, at most.
    """

    fusion: TrainedFusion
    members: tuple[str, ...]
    epochs: int
    cost: Cost

    def train(
        self, load: Callable[[str], keras.Model], train: Any, validation: Any = None
    ) -> keras.Model:
        """Train the ensemble.

        Args:
            load: Loads a member by its name.
            train: Training data, `(x, y)` arrays or a dataset.
            validation: Data of the same form, by which the series ends.

        Raises:
            FusionError: When the members cannot be fused, or no round lowers the loss.
        """
        models = [load(name) for name in self.members]
        return self.fusion.fuse(models, train, validation).model


def trained_ensembles(
    members: Sequence[Member],
    judge: Labelled,
    budget: Budget,
    whole: Cost,
    epochs: int,
    methods: Iterable[str] = ("boost",),
    seed: int = 0,
) -> tuple[TrainedEnsemble, ...]:
    """Boosted series that fit the budget and the epochs.

    A series keeps the best member that takes at most half of the budget, and trains as many new
    members of its structure as fit beside it. A `Chain` is not offered: each member would read the
    outputs of the one before it, and candidates of one run all read the run's inputs.

    Args:
        members: Trained candidates and given models, with different names.
        judge: The labels of validation.
        budget: The budget as given.
        whole: The cost that the budget's shares refer to.
        epochs: How many epochs may be spent, over all rounds of a series.
        methods: `"boost"`; other words are for other parts of the search.
        seed: Seed of new weights and of the order of rows.
    """
    pool = Pool.of(members, judge, budget, whole)
    first = next((one for one in pool.ranked if pool.limits.allow_part(one.cost, 2)), None)
    if "boost" not in methods or first is None or len(judge.tasks) > 1:
        return ()
    fitting = [n for n in range(2, MOST_ROUNDS + 1) if pool.limits.allow_part(first.cost, n)]
    rounds = min(max(fitting), 1 + epochs)
    if rounds < 2:
        return ()
    fusion = Boost(rounds=rounds, epochs=epochs // (rounds - 1), seed=seed % 2**32)
    spent = fusion.epochs * (rounds - 1)
    return (TrainedEnsemble(fusion, (first.name,), spent, together([first.cost] * rounds)),)
