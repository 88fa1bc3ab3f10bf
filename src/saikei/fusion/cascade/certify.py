"""Tests by betting: whether a mean is above 0, assuming only that rows are drawn alike."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import optimize, special

from saikei.fusion.cascade.policies import Goal, Policy
from saikei.fusion.cascade.stage_table import StageTable

# Steps of a path that are tested: leaving some out costs a little gain and no certainty.
_STEPS = 200
# How many worst rows a bold and a careful bet add to those that a policy was chosen by.
_UNSEEN = (1, 4)


def certified(
    path: Sequence[Policy],
    goal: Goal,
    chosen_by: StageTable,
    checked_by: StageTable,
    certainty: float,
) -> Policy | None:
    """The last policy of a path before one fails the goal, on rows that did not choose it.

    Fixed-sequence testing: the path goes from the safest policy to the boldest, and ends before
    the first that fails. So the probability that what is chosen misses the goal is at most
    1 - certainty, however long the path (Laufer-Goldenshluger et al., "Efficiently Controlling
    Multiple Risks with Pareto Testing", 2023).

    Args:
        path: Policies, the safest first.
        goal: The goal to keep.
        chosen_by: The rows that the path was computed from.
        checked_by: Rows that the path was not computed from.
        certainty: The probability with which the goal is to be kept, between 0 and 1.

    Returns:
        The policy, or `None` if not even the first keeps the goal.
    """
    kept = None
    for index in np.unique(np.linspace(0, len(path) - 1, _STEPS).round().astype(int)):
        policy = path[index]
        seen, lowest = goal.margins(policy, chosen_by), goal.lowest(chosen_by)
        bets = [best_bet(seen, lowest, unseen) for unseen in _UNSEEN]
        if p_value(bets, goal.margins(policy, checked_by)) > 1 - certainty:
            break
        kept = policy
    return kept


def best_bet(margins: np.ndarray, lowest: float, unseen: int) -> float:
    """The share of capital, in units of 1 / margin, to bet on a positive mean.

    It makes capital grow fastest on these margins and some more of the lowest possible.

    Args:
        margins: `(n,)`, none below `lowest`.
        lowest: The lowest possible margin, below 0.
        unseen: How many margins of the lowest kind are added.
    """
    seen, counts = np.unique(np.append(margins, [lowest] * unseen), return_counts=True)

    def loss(bet: float) -> float:
        return -float(counts @ np.log1p(bet * seen))

    highest = (1 - 1e-9) / -lowest
    return float(optimize.minimize_scalar(loss, bounds=(0.0, highest), method="bounded").x)


def p_value(bets: Sequence[float], margins: np.ndarray) -> float:
    """The p-value of a mean of at most 0: 1 / capital after betting on each row (Ville).

    With a mean of at most 0 the capital is 1 or less in expectation, so it exceeds c with a
    probability of 1 / c at most (Waudby-Smith and Ramdas, "Estimating means of bounded random
    variables by betting", 2024). The same holds for the mean capital of several bets.

    Args:
        bets: Shares of capital, chosen without these rows.
        margins: The margin of each row, `(n,)`.
    """
    grown = [float(np.log1p(bet * margins).sum()) for bet in bets]
    return float(np.exp(-max(0.0, special.logsumexp(grown) - np.log(len(bets)))))
