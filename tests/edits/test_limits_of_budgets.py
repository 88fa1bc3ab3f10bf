"""Every edit that takes a budget keeps limits on bytes and memory, or names what it can reach."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import keras
import pytest
from keras import layers

from saikei import Budget, Factorize, PruneChannels, RemoveLayers, Separate, profile
from saikei.errors import BudgetError

EDITS: dict[str, Callable[[Budget], Any]] = {
    "prune": lambda budget: PruneChannels(budget, importance="magnitude"),
    "remove": lambda budget: RemoveLayers(budget, ranking="weights"),
    "factorize": Factorize,
    "separate": Separate,
}


@cache
def network() -> keras.Model:
    keras.utils.set_random_seed(0)
    tensor = keras.Input((8, 8, 3))
    x = layers.Conv2D(16, 3, padding="same", activation="relu", name="stem")(tensor)
    for number in range(2):
        wide = layers.Conv2D(48, 3, padding="same", activation="relu", name=f"wide{number}")(x)
        narrow = layers.Conv2D(16, 3, padding="same", name=f"narrow{number}")(wide)
        x = layers.Add(name=f"add{number}")([x, narrow])
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(tensor, layers.Dense(5, name="classes")(x))


@pytest.mark.parametrize("edit", EDITS)
@pytest.mark.parametrize("limits", [{"bytes": 0.7}, {"bytes": 0.8, "macs": 0.6}], ids=str)
def test_limits_on_bytes_are_kept(edit: str, limits: dict[str, float]) -> None:
    budget = Budget(**limits)  # type: ignore[arg-type]
    small = EDITS[edit](budget)(network())
    costs, whole = (profile(model, latency=False) for model in (small, network()))
    assert budget.fits(costs, whole)
    assert costs.bytes == 4 * costs.params


@pytest.mark.parametrize(("edit", "share"), [("prune", 0.5), ("remove", 0.8), ("factorize", 0.9)])
def test_a_limit_on_memory_is_kept(edit: str, share: float) -> None:
    budget = Budget(memory=share)
    small = EDITS[edit](budget)(network())
    assert budget.fits(profile(small, latency=False), profile(network(), latency=False))


@pytest.mark.parametrize("edit", EDITS)
@pytest.mark.parametrize("limit", ["bytes", "memory"])
def test_a_limit_out_of_reach_is_refused_with_the_smallest_value(edit: str, limit: str) -> None:
    with pytest.raises(BudgetError, match=rf"{limit} can be brought down to [\d,]+"):
        EDITS[edit](Budget(**{limit: 0.001}))(network())  # type: ignore[arg-type]
