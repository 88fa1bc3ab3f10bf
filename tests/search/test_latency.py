"""A budget on latency, by a clock that tests set: a model's time is a function of its size."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import keras
import pytest

import saikei as sk
from saikei.channels import map_channels
from saikei.costs import count_costs
from saikei.errors import BudgetError, WorkError
from saikei.graph import read
from tests.search.small import LEAST, data, dense, search

TIMED = {**LEAST, "latency": True}


def milliseconds(model: keras.Model, *arguments: Any, **sizes: Any) -> float:
    return count_costs(map_channels(read(model))).macs / 100


def set_clock(monkeypatch: pytest.MonkeyPatch, measure: Callable[..., float]) -> None:
    for place in ("costs.latency", "search.propose.exact", "search.propose.proposer"):
        monkeypatch.setattr(f"saikei.{place}.measure_latency", measure)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    set_clock(monkeypatch, milliseconds)


@pytest.mark.long
@pytest.mark.usefixtures("clock")
def test_what_ships_keeps_a_budget_on_latency(tmp_path: Any) -> None:
    model = dense()
    result = search(model, tmp_path / "run", budget=sk.Budget(latency=0.5), **TIMED)
    limit = 0.5 * milliseconds(model)
    assert result.run.cost_axis == "latency"
    assert result.run.settings.limits == {"latency": limit}
    assert milliseconds(result.best) <= limit


@pytest.mark.long
@pytest.mark.parametrize("limit", ["share", "milliseconds"])
def test_a_limit_below_a_millisecond_is_kept_and_used(
    limit: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    model = dense()
    whole = milliseconds(model)

    def fast(timed: keras.Model, *arguments: Any, **sizes: Any) -> float:
        return 0.8 * milliseconds(timed) / whole

    set_clock(monkeypatch, fast)
    budget = sk.Budget(latency=0.75 if limit == "share" else "0.6 ms")
    result = search(model, tmp_path / "run", budget=budget, **TIMED)
    found = [c.cost.latency for c in result.candidates if c.fits and c.cost.latency is not None]
    assert 0.45 < max(found) <= 0.6


@pytest.mark.long
def test_the_smallest_latency_of_a_refusal_can_be_asked_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    model = dense()
    whole = milliseconds(model)

    def partly(timed: keras.Model, *arguments: Any, **sizes: Any) -> float:
        # Half of the time does not depend on the MACs.
        return 0.4 + 0.4 * milliseconds(timed) / whole

    set_clock(monkeypatch, partly)
    with pytest.raises(BudgetError, match="latency can be brought down to") as refused:
        search(model, tmp_path / "run", budget=sk.Budget(latency=0.3), **TIMED)
    smallest = re.search(r"down to ([\d.]+ ms)", str(refused.value))
    assert smallest is not None
    search(model, tmp_path / "other", budget=sk.Budget(latency=smallest.group(1)), **TIMED)


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
