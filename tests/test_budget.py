"""Budgets: what is a share, what is absolute, and what is refused."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from saikei import Budget
from saikei.errors import BudgetError


@dataclass
class Costs:
    macs: int
    params: int
    latency: float | None = None


ORIGINAL = Costs(macs=1000, params=500, latency=8.0)


def test_floats_are_shares_and_integers_are_absolute() -> None:
    limits = Budget(macs=0.25, params=100, latency=0.5).limits(ORIGINAL)
    assert limits == {"macs": 250.0, "params": 100.0, "latency": 4.0}


def test_a_latency_above_one_is_milliseconds() -> None:
    assert Budget(latency=3.5).limits(ORIGINAL) == {"latency": 3.5}


def test_every_limit_has_to_be_kept() -> None:
    budget = Budget(macs=0.5, params=0.5)
    assert budget.fits(Costs(500, 250), ORIGINAL)
    assert not budget.fits(Costs(500, 251), ORIGINAL)
    assert not budget.fits(Costs(501, 250), ORIGINAL)


def test_a_scaled_budget_is_absolute() -> None:
    assert Budget(macs=0.5, params=100).scaled(0.5, ORIGINAL) == Budget(macs=250, params=50)


@pytest.mark.parametrize("latency", [0.8, 8.0])
def test_a_scaled_latency_means_the_same_below_and_above_a_millisecond(latency: float) -> None:
    original = Costs(macs=1000, params=500, latency=latency)
    scaled = Budget(latency=0.5).scaled(0.5, original)
    assert scaled.limits(original)["latency"] == pytest.approx(0.25 * latency)


def test_budgets_go_through_dictionaries() -> None:
    budget = Budget(macs=0.25, latency=2.5)
    assert Budget.from_dict(budget.to_dict()) == budget


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "empty"),
        ({"macs": 0}, "not positive"),
        ({"macs": -0.5}, "not positive"),
        ({"macs": float("nan")}, "not positive"),
        ({"macs": 1.5}, "share above 1"),
        ({"params": "many"}, "no number"),
        ({"params": True}, "no number"),
    ],
)
def test_malformed_budgets_are_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(BudgetError, match=message):
        Budget(**arguments)  # type: ignore[arg-type]


def test_an_unknown_limit_is_refused_by_name() -> None:
    with pytest.raises(BudgetError, match="'flops'"):
        Budget.from_dict({"flops": 0.5})


def test_a_latency_budget_needs_a_measured_latency() -> None:
    with pytest.raises(BudgetError, match="not measured"):
        Budget(latency=0.5).limits(Costs(1, 1))
