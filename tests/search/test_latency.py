"""A budget on latency, by a clock that tests set: a model's time is a function of its size."""

from __future__ import annotations

from typing import Any

import keras
import pytest

import saikei as sk
from saikei.channels import map_channels
from saikei.costs import count_costs
from saikei.errors import WorkError
from saikei.graph import read
from tests.search.small import LEAST, data, dense, search

TIMED = {**LEAST, "latency": True}


def milliseconds(model: keras.Model, *arguments: Any, **sizes: Any) -> float:
    return count_costs(map_channels(read(model))).macs / 100


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    places = ("costs.latency", "search.propose.exact", "search.propose.proposer")
    for module in (f"saikei.{place}" for place in places):
        monkeypatch.setattr(f"{module}.measure_latency", milliseconds)


@pytest.mark.long
@pytest.mark.usefixtures("clock")
def test_what_ships_keeps_a_budget_on_latency(tmp_path: Any) -> None:
    model = dense()
    result = search(model, tmp_path / "run", budget=sk.Budget(latency=0.5), **TIMED)
    limit = 0.5 * milliseconds(model)
    assert result.run.cost_axis == "latency"
    assert result.run.settings.limits == {"latency": limit}
    assert milliseconds(result.best) <= limit


@pytest.mark.usefixtures("clock")
def test_a_structure_that_is_too_slow_when_timed_again_is_not_trained(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    model = dense()
    whole = milliseconds(model)

    def slower(timed: keras.Model, *arguments: Any, **sizes: Any) -> float:
        return max(milliseconds(timed), 0.8 * whole)

    # Structures are found by the good clock, and what comes of them is timed by the slow one.
    monkeypatch.setattr("saikei.costs.latency.measure_latency", slower)
    with pytest.raises(WorkError, match="keep the budget"):
        search(model, tmp_path / "run", budget=sk.Budget(latency=0.5), **TIMED)
    made = [path.name for path in (tmp_path / "run" / "candidates").iterdir()]
    assert made == ["original"]


@pytest.mark.long
def test_a_limit_that_everything_keeps_by_the_real_clock_is_no_limit() -> None:
    result = search(dense(), None, budget=sk.Budget(latency=60_000), test=None, **TIMED)
    assert all(c.fits for c in result.candidates)
    assert result.chosen.cost.latency is not None
    assert result.best.predict(data().train[0][:2], verbose=0).shape == (2, 10)
