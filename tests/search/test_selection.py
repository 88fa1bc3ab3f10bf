"""What ships: the best that keeps the budget, or the simplest that is not clearly worse."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from saikei.errors import WorkError
from saikei.runs.candidate import Candidate
from saikei.scoring.labelled import Labelled, Outputs
from saikei.search.selection import choose_candidate, harm
from tests.search.made_up import candidate, cost, judge_of_binary, judge_of_number, right

JUDGE = judge_of_binary(np.arange(200) % 2)


def chosen(
    candidates: list[Candidate], outputs: dict[str, Outputs], judge: Labelled = JUDGE
) -> str:
    """The name that is selected, once every candidate has the score of its outputs."""
    scored = [replace(c, validation=judge.score(outputs[c.name])) for c in candidates]
    forwards = choose_candidate(scored, outputs, judge, "macs").chosen.name
    assert choose_candidate(scored[::-1], outputs, judge, "macs").chosen.name == forwards
    return forwards


def test_a_clear_winner_ships_at_any_cost() -> None:
    dear, cheap = candidate("dear", cost=cost(900)), candidate("cheap", cost=cost(10))
    outputs = {"dear": right(JUDGE, 190), "cheap": right(JUDGE, 150)}
    assert chosen([dear, cheap], outputs) == "dear"


def test_within_the_budget_the_best_ships_and_the_cheapest_is_named() -> None:
    dear, cheap = candidate("dear", cost=cost(900)), candidate("cheap", cost=cost(10))
    given = candidate("original", kind="given", parent=None, cost=cost(900))
    average = candidate("both", kind="fused", family="average", members=("dear", "cheap"))
    # Right on 180 and on another 178: of a paired difference of 1 %, the error is 2.2 points.
    outputs = {
        "dear": right(JUDGE, 180),
        "cheap": right(JUDGE, 178, first=20),
        "original": right(JUDGE, 177, first=21),
        "both": right(JUDGE, 181),
    }
    assert chosen([dear, cheap, given, average], outputs) == "dear"
    scored = [replace(c, validation=JUDGE.score(outputs[c.name])) for c in (dear, cheap)]
    reason = choose_candidate(scored, outputs, JUDGE, "macs").decision.reason
    assert "cheap has 1 % of its MACs per sample and is behind the best by 1.00 points" in reason
    # As good as the best is not enough to change what was given; of equals the cheaper ships.
    outputs["original"] = outputs["cheap"] = outputs["dear"]
    assert chosen([dear, cheap, given], outputs) == "original"
    assert chosen([dear, cheap], outputs) == "cheap"


@pytest.mark.parametrize(("behind", "ships"), [(1, "equal"), (2, "learned")])
def test_the_boundary_is_one_paired_standard_error(behind: int, ships: str) -> None:
    # Wrong on so many more and right on no other: the mean is k / 200, and its standard error
    # √(k (200 - k) / 199) / 200: that is 1 / 200 for k = 1, and 1.41 / 200 < 2 / 200 for k = 2.
    pair = {"kind": "fused", "family": "average", "members": ("x", "y"), "cost": cost(10)}
    learned = candidate("learned", plan={"complexity": 2}, **pair)
    equal = candidate("equal", plan={"complexity": 1}, **pair)
    outputs = {"learned": right(JUDGE, 180), "equal": right(JUDGE, 180 - behind)}
    assert chosen([learned, equal], outputs) == ships


def test_of_equal_ones_the_one_ships_that_is_not_slower_than_the_original() -> None:
    slow = candidate("slow", cost=cost(10, latency=60.0))
    fast = candidate("fast", cost=cost(20, latency=9.0))
    original = candidate("original", kind="original", fits=False, cost=cost(100, latency=10.0))
    outputs = {"slow": right(JUDGE, 180), "fast": right(JUDGE, 180)}
    scored = [replace(c, validation=JUDGE.score(outputs[c.name])) for c in (slow, fast)]

    def choice(candidates: list[Candidate]) -> Candidate:
        return choose_candidate(candidates, outputs, JUDGE, "macs", original).chosen

    assert choice(scored).name == "fast"
    assert harm(choice(scored), original) == ()
    # Without another one the report begins with it.
    (decision,) = harm(choice(scored[:1]), original)
    assert decision.choice == "latency"
    assert "slow has latency 60.00 ms and not 10.00 ms" in decision.reason


def test_a_single_model_is_chosen_over_an_average_that_is_not_clearly_better() -> None:
    single = candidate("single", cost=cost(100))
    average = candidate(
        "average", kind="fused", family="average", members=("x", "y"), cost=cost(20)
    )
    outputs = {"single": right(JUDGE, 178, first=20), "average": right(JUDGE, 180)}
    assert chosen([single, average], outputs) == "single"


def test_fewer_members_and_then_equal_weights_are_simpler() -> None:
    outputs = {name: right(JUDGE, 180) for name in ("learned", "equal", "three")}
    average = {"kind": "fused", "family": "average", "cost": cost(100)}
    learned = candidate("learned", members=("x", "y"), plan={"complexity": 2}, **average)
    equal = candidate("equal", members=("x", "y"), plan={"complexity": 1}, **average)
    three = candidate("three", members=("x", "y", "z"), plan={"complexity": 1}, **average)
    assert chosen([three, learned, equal], outputs) == "equal"
    assert chosen([three, learned], outputs) == "learned"


def test_harm_is_not_done_an_original_that_fits_stays_unless_it_is_beaten() -> None:
    given = candidate("original", kind="given", parent=None, cost=cost(100))
    pruned = candidate("small", cost=cost(90))
    worse = {"original": right(JUDGE, 190), "small": right(JUDGE, 170)}
    better = {"original": right(JUDGE, 170), "small": right(JUDGE, 190)}
    assert chosen([given, pruned], worse) == "original"
    assert chosen([given, pruned], better) == "small"


def test_what_does_not_keep_the_budget_never_ships() -> None:
    over = candidate("original", kind="original", fits=False, cost=cost(1000))
    small = candidate("small")
    outputs = {"original": right(JUDGE, 200), "small": right(JUDGE, 110)}
    assert chosen([over, small], outputs) == "small"
    with pytest.raises(WorkError, match="No candidate keeps the budget: every training diverged"):
        choose_candidate([over], outputs, JUDGE, "macs")
    large = candidate("large", fits=False, cost=cost(900))
    with pytest.raises(WorkError, match="the smallest that was trained, 'large', has 900 macs"):
        choose_candidate([over, large], outputs, JUDGE, "macs")


def test_of_a_metric_that_is_an_error_less_is_better() -> None:
    rng = np.random.default_rng(0)
    judge = judge_of_number(rng.normal(size=300))
    truth = judge.labels[0].values
    noise = rng.normal(size=truth.shape)
    outputs: dict[str, Outputs] = {
        "best": (truth + 0.10 * noise,),
        "near": (truth + 0.10 * rng.permutation(noise),),
        "far": (truth + 0.50 * noise,),
    }
    pair = {"kind": "fused", "family": "average", "members": ("x", "y")}
    candidates = [candidate("best", **pair), candidate("far", cost=cost(1))]
    assert chosen(candidates, outputs, judge) == "best"
    assert chosen([*candidates, candidate("near", cost=cost(200))], outputs, judge) == "near"


def test_the_reason_gives_the_figures() -> None:
    pair = candidate("pair", kind="fused", family="average", members=("x", "y"), cost=cost(90))
    single = candidate("single", cost=cost(90))
    outputs = {"pair": right(JUDGE, 190), "single": right(JUDGE, 189)}
    scored = [replace(c, validation=JUDGE.score(outputs[c.name])) for c in (pair, single)]
    # The two are no further apart than luck allows, unless the ensemble is ahead by more of it.
    decision = choose_candidate(scored, outputs, JUDGE, "macs").decision
    assert decision.choice == "single"
    assert "single has the best accuracy on validation, and no other" in decision.reason


def test_a_soup_is_as_simple_as_one_model() -> None:
    soup = candidate("soup", kind="fused", family="soup", members=("x", "y"), cost=cost(10))
    single, average = candidate("single", cost=cost(100)), replace(soup, family="average")
    outputs = {"single": right(JUDGE, 180), "soup": right(JUDGE, 181, first=19)}
    # It is one model and fits nothing, so the better one of the two is chosen.
    assert chosen([soup, single], outputs) == "soup"
    assert chosen([average, single], outputs) == "single"
