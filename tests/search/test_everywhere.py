"""Candidates are the same bit by bit, whichever executor trains them in how many processes."""

from __future__ import annotations

import importlib.util
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from keras import layers

from saikei.executors import Inline, TaskFailure, executor_for
from saikei.search.race import Driver, Part, RungResult, RungTask
from saikei.search.rungs import RungFolder
from tests.search.race.test_rung import HALF, network, plan, shared_of
from tests.search.small import data

PLANS = [
    plan(name="kept", recipe=HALF.to_dict()),
    plan(name="fresh", weights="fresh", family="fresh", seed=7),
]
RAY = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is an extra")


def trained_by(executor: Any, shared: Any, path: Path) -> list[RungResult]:
    """Both candidates after two rungs, each of which goes through the disk."""
    rungs = RungFolder(path)
    driver = Driver(shared, executor, rungs.load, rungs.store)
    for begin in (0, 1):
        driver.train([Part(RungTask(one, begin, begin + 1, 4)) for one in PLANS])
    results = [rungs.load(one.name, 2) for one in PLANS]
    assert not any(isinstance(result, TaskFailure) for result in results), results
    return results  # type: ignore[return-value]


def bits(result: RungResult) -> dict[str, Any]:
    """The bytes of all arrays of a result, and what else it holds but its duration."""
    shown: dict[str, Any] = {"outputs": [array.tobytes() for array in result.outputs]}
    for f in fields(result.state):  # type: ignore[arg-type]
        value = getattr(result.state, f.name)
        arrays = isinstance(value, tuple) and value and isinstance(value[0], np.ndarray)
        shown[f.name] = [array.tobytes() for array in value] if arrays else value
    return {**shown, "score": result.score, "curves": result.curves, "cost": result.cost}


@pytest.fixture(scope="module")
def shared() -> Any:
    model, splits = network(layers.Dropout(0.2), layers.Dense(10, activation="softmax")), data()
    return shared_of(model, splits.train, splits.validation)


@pytest.fixture(scope="module")
def expected(shared: Any, tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    return [*map(bits, trained_by(Inline(), shared, tmp_path_factory.mktemp("inline")))]


@pytest.mark.slow
@pytest.mark.backends
@pytest.mark.parametrize(
    "arguments",
    [{"workers": 1}, {"workers": 2}, {"workers": 4}, pytest.param({"ray": "local"}, marks=RAY)],
    ids=str,
)
def test_candidates_are_the_same(
    arguments: Any, shared: Any, expected: list[Any], tmp_path: Path
) -> None:
    try:
        found = trained_by(executor_for(**arguments), shared, tmp_path)
    finally:
        if "ray" in arguments:
            import ray

            ray.shutdown()
    assert [*map(bits, found)] == expected
