"""Shapley values have the properties that define them, and samples are as near as their errors."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import permutations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saikei.judging.explaining.shapley import all_coalitions, exact_shapley, sampled_shapley


@dataclass
class TableGame:
    """A game whose losses are written down, `(2^members, rows)`, by the members' bits."""

    table: Any
    asked: list = field(default_factory=list)

    @property
    def members(self):
        return int(np.log2(len(self.table)))

    @property
    def rows(self):
        return self.table.shape[1]

    def losses(self, coalitions):
        places = coalitions @ (1 << np.arange(self.members))
        self.asked.extend(places.tolist())
        return self.table[places].astype(float)


def random_game(members, rows=5, seed=0):
    return TableGame(np.random.default_rng(seed).normal(size=(1 << members, rows)))


def by_definition(game):
    """The mean, over all orders of arrival, of what each member takes off the mean loss."""
    value, count = game.table.mean(axis=1), game.members
    total, orders = np.zeros(count), list(permutations(range(count)))
    for order in orders:
        present = 0
        for member in order:
            total[member] += value[present] - value[present | 1 << member]
            present |= 1 << member
    return total / len(orders)


games = st.builds(random_game, st.integers(2, 5), st.integers(1, 6), st.integers(0, 1 << 16))


@settings(max_examples=40, deadline=None)
@given(games)
def test_exact_values_are_the_mean_over_all_orders_of_arrival(game):
    np.testing.assert_allclose(exact_shapley(game).values, by_definition(game), atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(games, st.booleans())
def test_values_sum_to_the_gain_of_all_members(game, sample):
    shared = sampled_shapley(game, 4, 0) if sample else exact_shapley(game)
    value = game.table.mean(axis=1)
    assert (shared.without_members, shared.with_all) == pytest.approx((value[0], value[-1]))
    assert shared.values.sum() == pytest.approx(value[0] - value[-1])


@settings(max_examples=40, deadline=None)
@given(games)
def test_members_that_can_be_exchanged_have_equal_values(game):
    # Make members 0 and 1 exchangeable: a coalition has the loss of its mirror image.
    places = np.arange(len(game.table))
    mirrored = places & ~3 | (places & 1) << 1 | (places & 2) >> 1
    game.table = game.table + game.table[mirrored]
    values = exact_shapley(game).values
    assert values[0] == pytest.approx(values[1])


@settings(max_examples=40, deadline=None)
@given(games, st.booleans())
def test_a_member_that_never_changes_anything_has_no_value(game, sample):
    game.table = game.table[np.arange(len(game.table)) & ~1]
    shared = sampled_shapley(game, 4, 0) if sample else exact_shapley(game)
    assert shared.values[0] == pytest.approx(0.0, abs=1e-12)


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 5), st.integers(0, 1000))
def test_values_of_a_sum_of_games_are_the_sums_of_the_values(members, seed):
    one, other = random_game(members, seed=seed), random_game(members, seed=seed + 1)
    both = TableGame(one.table + other.table)
    np.testing.assert_allclose(
        exact_shapley(both).values,
        exact_shapley(one).values + exact_shapley(other).values,
        atol=1e-12,
    )


def test_every_coalition_is_asked_once():
    game = random_game(6)
    exact_shapley(game)
    assert sorted(game.asked) == list(range(64))


def test_coalitions_run_from_none_to_all():
    coalitions = all_coalitions(3)
    assert coalitions.shape == (8, 3)
    assert not coalitions[0].any()
    assert coalitions[-1].all()
    assert len(np.unique(coalitions, axis=0)) == 8


def test_errors_over_rows_are_those_of_the_values_of_each_row():
    game = random_game(3, rows=40)
    of_rows = [exact_shapley(TableGame(game.table[:, [row]])).values for row in range(40)]
    expected = np.std(of_rows, axis=0, ddof=1) / np.sqrt(40)
    np.testing.assert_allclose(exact_shapley(game).errors, expected)
    assert exact_shapley(random_game(3, rows=1)).errors.tolist() == [0.0] * 3


def test_samples_are_as_far_from_the_exact_values_as_their_errors():
    game = random_game(8, rows=20)
    exact = exact_shapley(game).values
    draws = [sampled_shapley(game, 64, seed) for seed in range(40)]
    distances = np.array([(drawn.values - exact) / drawn.sampling_errors for drawn in draws])
    # 320 distances in standard errors: of a normal distribution, 0 ± 0.06 and 1 ± 0.04.
    assert abs(distances.mean()) < 0.25
    assert 0.8 < distances.std() < 1.3
    assert np.abs(distances).max() < 5


def test_more_orders_come_nearer():
    game = random_game(8, rows=20)
    exact = exact_shapley(game).values
    few, many = (sampled_shapley(game, orders, 0) for orders in (16, 1024))
    assert np.abs(many.values - exact).max() < np.abs(few.values - exact).max() / 3
    assert many.sampling_errors.max() < few.sampling_errors.max() / 3
    assert (few.orders, many.orders) == (16, 1024)


def test_the_same_seed_draws_the_same_orders():
    game = random_game(6)
    one, again, other = (sampled_shapley(game, 8, seed) for seed in (0, 0, 1))
    assert one.values.tolist() == again.values.tolist()
    assert one.values.tolist() != other.values.tolist()


def test_all_orders_of_two_members_are_exact():
    game = random_game(2)
    sampled = sampled_shapley(game, 4, 0)  # an order and its reverse are all there are
    np.testing.assert_allclose(sampled.values, exact_shapley(game).values, atol=1e-12)
    np.testing.assert_allclose(sampled.sampling_errors, 0.0, atol=1e-12)
    np.testing.assert_allclose(sampled.errors, exact_shapley(game).errors, atol=1e-12)
