"""The Pareto front is what a comparison of every pair gives."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saikei import Budget
from saikei.runs.candidate import Candidate
from saikei.runs.front import cost_axis, pareto_front
from tests.search.made_up import candidate, cost, score

# Few values, so that ties are common.
POINTS = st.lists(st.tuples(st.integers(1, 6), st.integers(1, 6)), max_size=12)


def candidates(points: list[tuple[int, int]], greater_is_better: bool = True) -> list[Candidate]:
    return [
        candidate(f"c{i:02}", cost=cost(macs), validation=score(value / 10, greater_is_better))
        for i, (macs, value) in enumerate(points)
    ]


def dominates(a: Candidate, b: Candidate, sign: int) -> bool:
    gain = sign * (a.validation.value - b.validation.value)
    saved = b.cost.macs - a.cost.macs
    if gain == 0 and saved == 0:
        return a.name < b.name
    return gain >= 0 and saved >= 0


@given(points=POINTS, greater_is_better=st.booleans(), order=st.randoms())
def test_the_front_is_what_nothing_dominates(
    points: list[tuple[int, int]], greater_is_better: bool, order: Any
) -> None:
    every = candidates(points, greater_is_better)
    sign = 1 if greater_is_better else -1
    expected = {
        c.name for c in every if not any(dominates(o, c, sign) for o in every if o is not c)
    }
    order.shuffle(every)
    front = pareto_front(every, "macs")
    assert {c.name for c in front} == expected
    assert [c.cost.macs for c in front] == sorted({c.cost.macs for c in front})


def test_each_axis_has_its_own_front() -> None:
    small = candidate("small", 0.8, cost=cost(macs=10, params=90, latency=2.0))
    lean = candidate("lean", 0.9, cost=cost(macs=50, params=20, latency=1.0))
    assert [c.name for c in pareto_front([lean, small], "macs")] == ["small", "lean"]
    assert [c.name for c in pareto_front([lean, small], "params")] == ["lean"]
    assert [c.name for c in pareto_front([lean, small], "latency")] == ["lean"]


@pytest.mark.parametrize(
    ("budget", "axis"),
    [
        (Budget(params=5), "params"),
        (Budget(latency=2.0, params=5), "params"),
        (Budget(latency=2.0), "latency"),
        (Budget(params=0.5, macs=0.5), "macs"),
    ],
)
def test_the_axis_is_the_first_limited_cost(budget: Budget, axis: str) -> None:
    assert cost_axis(budget) == axis
