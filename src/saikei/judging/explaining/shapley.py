"""Shapley values of a game: exact over all coalitions, or sampled over orders of joining.

Shapley, "A Value for n-Person Games", 1953; Castro et al., "Polynomial calculation of the Shapley
value based on sampling", 2009. An order and its reverse are drawn together (Mitchell et al.,
"Sampling Permutations for Shapley Value Estimation", 2022).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from math import factorial

import numpy as np
from numpy.typing import NDArray

from saikei.batches import Array
from saikei.blas import one_thread
from saikei.judging.explaining.coalitions import Present
from saikei.judging.explaining.games import Game
from saikei.scoring.score import standard_error

EXACT = 12
# Losses that are computed at once: as many as fit into the second-level cache.
_AT_ONCE = 1 << 17


@dataclass(frozen=True, eq=False)
class Shapley:
    """The Shapley values of members, which divide the gain of all members over none.

    Args:
        values: One for each member; they sum to `without_members - with_all`.
        errors: Standard errors of the values, as means over rows.
        sampling_errors: Standard errors over the drawn orders; 0 where all coalitions were
            evaluated.
        with_all: The mean loss with all members.
        without_members: The mean loss without any member.
        orders: How many orders were drawn, half of them reversed ones; `None` for exact values.
    """

    values: Array
    errors: Array
    sampling_errors: Array
    with_all: float
    without_members: float
    orders: int | None = field(default=None)


def shapley(game: Game, orders: int, seed: int) -> Shapley:
    """Shapley values: exact for up to 12 members, sampled for more.

    Args:
        game: The losses of all coalitions.
        orders: How many orders to draw for more than 12 members.
        seed: Seed of the orders.
    """
    # Matrices this small are multiplied faster without threads, much so on a busy machine.
    with one_thread():
        if game.members <= EXACT:
            return exact_shapley(game)
        return sampled_shapley(game, orders, seed)


def exact_shapley(game: Game) -> Shapley:
    """Shapley values by all coalitions, `2^members` of them.

    Args:
        game: The losses of all coalitions of at most about 20 members.
    """
    count = game.members
    coalitions = all_coalitions(count)
    sizes = coalitions.sum(axis=1)
    # A coalition of s members is followed by member i in s! (n-s-1)! of n! orders.
    share = [factorial(s) * factorial(count - s - 1) / factorial(count) for s in range(count)]
    ahead, among = np.array([*share, 0.0])[sizes], np.array([0.0, *share])[sizes]
    coefficients = np.where(coalitions.T, -among, ahead)
    of_rows = np.zeros((count, game.rows))
    means = np.empty(len(coalitions))
    for part in _blocks(len(coalitions), game.rows):
        losses = game.losses(coalitions[part])
        of_rows += coefficients[:, part] @ losses
        means[part] = losses.mean(axis=1)
    return Shapley(
        values=coefficients @ means,
        errors=standard_error(of_rows),
        sampling_errors=np.zeros(count),
        with_all=float(means[-1]),
        without_members=float(means[0]),
    )


def sampled_shapley(game: Game, orders: int, seed: int) -> Shapley:
    """Shapley values by what each member adds when members join in random orders.

    Args:
        game: The losses of all coalitions.
        orders: How many orders to draw; rounded up to an even number of at least 4.
        seed: Seed of the orders.
    """
    count, generator = game.members, np.random.default_rng(seed)
    pairs = max(2, -(-orders // 2))
    ends = np.array([[False] * count, [True] * count])
    without_members, with_all = game.losses(ends)
    of_rows = np.zeros((count, game.rows))
    of_pairs = np.empty((pairs, count))
    for pair in range(pairs):
        order = generator.permutation(count)
        both = np.stack([order, order[::-1]])
        gains = _gains(game, both, without_members, with_all)
        of_pairs[pair] = gains.mean(axis=1)
        of_rows += gains / pairs
    return Shapley(
        values=of_pairs.mean(axis=0),
        errors=standard_error(of_rows),
        sampling_errors=standard_error(of_pairs.T),
        with_all=float(with_all.mean()),
        without_members=float(without_members.mean()),
        orders=2 * pairs,
    )


def _gains(game: Game, orders: NDArray[np.int64], without_members: Array, with_all: Array) -> Array:
    """By how much each member lowers each row's loss when it joins, `(members, rows)`."""
    count = game.members
    total = np.zeros((count, game.rows))
    for order in orders:
        arrived = np.argsort(order)[None, :] < np.arange(1, count)[:, None]
        before = without_members
        for part in _blocks(count - 1, game.rows):
            losses = game.losses(arrived[part])
            total[order[part]] += np.concatenate([before[None], losses[:-1]]) - losses
            before = losses[-1]
        total[order[-1]] += before - with_all
    return total / len(orders)


def all_coalitions(members: int) -> Present:
    """Every set of members, `(2^members, members)`: none first, all last."""
    return (np.arange(1 << members)[:, None] >> np.arange(members) & 1).astype(np.bool_)


def _blocks(coalitions: int, rows: int) -> Iterator[slice]:
    size = max(1, _AT_ONCE // rows)
    for start in range(0, coalitions, size):
        yield slice(start, min(start + size, coalitions))
