"""Budgets: what is a share, what is absolute, and what is refused."""

from __future__ import annotations

import re
from dataclasses import dataclass

import pytest

from saikei import Budget
from saikei.errors import BudgetError


@dataclass
class Costs:
    macs: int
    params: int
    latency: float | None = None
    bytes: int = 2000
    memory: int | None = 400
    batch_size: int = 32
    mean_macs: float | None = None
    mean_latency: float | None = None


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
def test_a_scaled_latency_is_absolute_below_and_above_a_millisecond(latency: float) -> None:
    original = Costs(macs=1000, params=500, latency=latency)
    scaled = Budget(latency=0.5).scaled(0.5, original)
    for other in (0.1, 1.0, 20.0):
        limits = scaled.limits(Costs(macs=10, params=5, latency=other))
        assert limits["latency"] == pytest.approx(0.25 * latency)


@pytest.mark.parametrize("text", ["0.5 ms", "0.5ms", " 0.50 ms "])
def test_a_latency_with_its_unit_is_absolute(text: str) -> None:
    budget = Budget(latency=text)
    assert budget == Budget(latency="0.5 ms")
    assert Budget.from_dict(budget.to_dict()) == budget
    assert str(budget) == "latency ≤ 0.5 ms"
    assert budget.limits(ORIGINAL) == {"latency": 0.5}
    assert budget.fits(Costs(1000, 500, latency=0.5), ORIGINAL)
    assert not budget.fits(Costs(1000, 500, latency=0.51), ORIGINAL)


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
        ({"params": "many"}, "give a number"),
        ({"params": True}, "give a number"),
        ({"macs": 0.5, "batch_size": 1}, "there is none: give latency too"),
        ({"latency": 0.5, "batch_size": 0}, "whole number from 1 to"),
        ({"latency": "0.5"}, "give it with its unit"),
        ({"latency": "fast ms"}, "give it with its unit"),
        ({"latency": "5 ms more"}, "give it with its unit"),
        ({"latency": "0 ms"}, "not positive"),
        ({"latency": "-1 ms"}, "not positive"),
        ({"macs": 0.5, "count": "best"}, "'worst' or 'mean'"),
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


def test_bytes_and_memory_are_limited_like_the_others() -> None:
    budget = Budget(bytes=0.5, memory=300)
    assert budget.limits(ORIGINAL) == {"bytes": 1000.0, "memory": 300.0}
    assert budget.fits(Costs(1, 1, bytes=1000, memory=300), ORIGINAL)
    assert not budget.fits(Costs(1, 1, bytes=1001, memory=300), ORIGINAL)
    assert not budget.fits(Costs(1, 1, bytes=1000, memory=301), ORIGINAL)
    assert budget.scaled(0.5, ORIGINAL) == Budget(bytes=500, memory=150)


def test_the_mean_counts_what_a_cascade_takes_on_average() -> None:
    cascade = Costs(macs=900, params=1, mean_macs=100.0)
    assert not Budget(macs=0.5).fits(cascade, ORIGINAL)
    assert Budget(macs=0.5, count="mean").fits(cascade, ORIGINAL)
    # Where the mean is unknown, and of what all members have, the worst case counts.
    assert not Budget(macs=0.5, count="mean").fits(Costs(900, 1), ORIGINAL)
    assert not Budget(params=0.5, count="mean").fits(Costs(1, 900, mean_macs=1.0), ORIGINAL)


def test_a_latency_counts_at_the_batch_size_of_the_budget_alone() -> None:
    budget = Budget(latency=0.5, batch_size=1)
    one = Costs(1, 1, latency=2.0, batch_size=1)
    assert budget.limits(one) == {"latency": 1.0}
    with pytest.raises(BudgetError, match="batch of 1, but that of a batch of 32 was measured"):
        budget.limits(ORIGINAL)
    assert Budget.from_dict(budget.to_dict()) == budget
    assert budget.counted() is None
    both = Budget(macs=0.5, latency=0.5, batch_size=1)
    assert both.counted() == Budget(macs=0.5)


def test_what_cannot_be_reached_is_named_with_the_smallest_value() -> None:
    reached = Costs(macs=100, params=50, bytes=900, memory=200)
    error = Budget(macs=0.2, bytes=0.25, memory=0.25).unreachable(reached, ORIGINAL, "pruning")
    assert "bytes can be brought down to 900 (45 %) by pruning" in str(error)
    assert "memory can be brought down to 200 bytes (50 %)" in str(error)
    assert "macs can be" not in str(error)


@pytest.mark.parametrize(("params", "least"), [(1_110, 37), (100, 29), (7, 2), (10**9, 12_345_678)])
def test_the_smallest_share_that_is_named_is_enough(params: int, least: int) -> None:
    original, reached = Costs(1, params), Costs(1, least)
    named = re.search(r"\(([\d.]+) %\)", str(Budget(params=1).unreachable(reached, original, "")))
    assert named is not None
    share = float(named.group(1)) / 100
    assert Budget(params=share).fits(reached, original)
    assert Budget(params=share).scaled(1.0, original).fits(reached, original)
    assert share == pytest.approx(least / params, rel=0.01)
