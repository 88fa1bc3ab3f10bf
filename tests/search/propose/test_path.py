"""The path, its front and the solution within several limits, against every combination."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from saikei.search.propose.path import descend, descend_to, fits, front, improve
from saikei.search.propose.position import Position
from saikei.search.propose.several import silenced, solve_linear, within_limits
from tests.search.propose.spaces import best_loss, limits, space


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("share", [0.2, 0.35, 0.5, 0.75])
def test_a_point_of_the_front_is_near_the_best_of_all_combinations(seed: int, share: float) -> None:
    made = space(seed)
    limit = share * made.costs(made.origin)[0]
    best = best_loss(made, limits(macs=limit))
    found = front([made], "macs").within(limit)
    if not np.isfinite(best):
        assert found is None
        return
    assert found is not None and found.costs[0] <= limit
    assert best <= found.loss + 1e-9
    assert found.loss <= 1.15 * best


def test_most_points_of_the_front_are_the_best() -> None:
    gaps = []
    for seed in range(12):
        made = space(seed)
        for share in (0.3, 0.5, 0.7):
            limit = share * made.costs(made.origin)[0]
            best = best_loss(made, limits(macs=limit))
            found = front([made], "macs").within(limit)
            if found is not None and best > 0:
                gaps.append(found.loss / best - 1)
    assert np.median(gaps) <= 0.01 and np.mean(gaps) <= 0.02


@pytest.mark.parametrize("seed", range(4))
def test_costs_fall_and_losses_rise_along_the_front(seed: int) -> None:
    made = space(seed, sites=8, levels=6)
    costs = [made.costs(levels)[0] for levels in descend(made, "macs")]
    assert all(b < a for a, b in itertools.pairwise(costs))
    points = front([made], "macs").least()
    losses = [p.loss for p in points]
    assert losses == sorted(losses, reverse=True)
    assert points[-1].loss == 0.0


@pytest.mark.parametrize("seed", range(5))
def test_the_linear_problem_is_solved_as_all_combinations_are_where_costs_are_sums(
    seed: int,
) -> None:
    made = space(seed, products=False)
    whole = made.costs(made.origin)
    within = limits(macs=0.5 * whole[0], params=0.6 * whole[1])
    best = best_loss(made, within)
    levels = solve_linear(made, made.origin, within)
    assert (levels is None) == (not np.isfinite(best))
    if levels is not None:
        assert made.loss(levels) == pytest.approx(best)
        assert fits(made.costs(levels), within * (1 + 1e-9))


@pytest.mark.parametrize("seed", range(5))
def test_several_limits_are_all_kept_and_little_more_is_lost_than_need_be(seed: int) -> None:
    made = space(seed)
    whole = made.costs(made.origin)
    within = limits(macs=0.6 * whole[0], bytes=0.6 * whole[2], memory=0.8 * whole[3])
    best = best_loss(made, within)
    found = within_limits(made, within)
    if not np.isfinite(best):
        assert found is None
        return
    assert found is not None and fits(found.costs, within)
    assert best - 1e-9 <= found.loss <= 1.1 * best


def test_improvement_keeps_the_limits_and_never_loses_more() -> None:
    made = space(1, sites=6)
    within = limits(macs=0.5 * made.costs(made.origin)[0])
    start = descend_to(made, within)
    better = improve(made, start, within)
    assert fits(made.costs(better), within) and made.loss(better) <= made.loss(start)


def test_costs_of_a_level_are_those_of_the_whole_structure() -> None:
    made = space(2)
    levels = np.array([1, 0, 2, 3, 1])
    for site in range(5):
        totals = []
        for level in range(4):
            one = levels.copy()
            one[site] = level
            totals.append(made.costs(one))
        table = made.table(site, levels)
        change = np.array(totals)[:, :3] - totals[0][:3]
        np.testing.assert_allclose(table - table[0], change)
        at = Position.at(made, levels)
        np.testing.assert_allclose(at.alive(site).max(axis=1), np.array(totals)[:, 3])
        np.testing.assert_allclose(at.moved(site, 2).costs, totals[2])


def test_what_a_solver_prints_does_not_reach_the_output(capfd: pytest.CaptureFixture[str]) -> None:
    import os

    with silenced():
        os.write(1, b"presolving")
    os.write(1, b"after")
    assert capfd.readouterr().out == "after"
