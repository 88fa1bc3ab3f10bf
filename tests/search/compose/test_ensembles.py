"""Ensembles are found within the budget, from stored predictions, and scored on unseen rows."""

from dataclasses import replace

import numpy as np
import pytest

from saikei import Budget
from saikei.errors import WorkError
from saikei.fusion import Average, Cascade, Stack
from saikei.fusion.evidence import Evidence
from saikei.judging.nested import Nest
from saikei.scoring.labelled import Labelled
from saikei.scoring.metrics import find_metric
from saikei.scoring.task import Task
from saikei.search.compose import Member, ensembles, gains, is_better, trained_ensembles
from saikei.search.compose.cascades import rated_chains
from saikei.search.compose.sets import Pool
from tests.search.compose.made_up import TASK, WHOLE, cost, crowd, judge_of, labels, member

FULL = Budget(macs=1.0)


def single_of(found):
    return next(one for one in found.ensembles if one.method == "single")


def test_the_best_ensembles_are_within_the_budget_and_better_than_the_best_member():
    y = labels()
    members = [*crowd(y, 6, 250), member("big", y, 1000, 1.4, 50), member("huge", y, 2000, 5, 51)]
    found = ensembles(members, judge_of(y), FULL, WHOLE)
    assert {"average", "learned", "greedy", "single"} <= {one.method for one in found.ensembles}
    assert all(one.cost.macs <= 1000 for one in found.ensembles)
    assert all("huge" not in one.members for one in found.ensembles)
    values = [one.score.value for one in found.ensembles]
    assert values == sorted(values, reverse=True)
    chosen = found.chosen(judge_of(y))
    assert len(chosen.members) > 1 and is_better(chosen, single_of(found), judge_of(y))
    assert single_of(found).members == ("big",)


def test_how_many_sets_are_scored_does_not_grow_with_the_members():
    y = labels(300)
    few, many = (
        ensembles(crowd(y, count, 200), judge_of(y), FULL, WHOLE, ("average",))
        for count in (12, 150)
    )
    assert many.considered["average"] <= 40
    assert many.ensembles[0].score.value >= few.ensembles[0].score.value


def test_the_same_call_gives_the_same_ensembles_in_any_order_of_members():
    y = labels(300)
    members = crowd(y, 5, 200)
    first, second = (
        ensembles(each, judge_of(y), FULL, WHOLE, ("average", "greedy"), seed=3)
        for each in (members, members[::-1])
    )
    assert [(t.method, sorted(t.members)) for t in first.ensembles] == [
        (t.method, sorted(t.members)) for t in second.ensembles
    ]
    np.testing.assert_array_equal(first.ensembles[0].outputs[0], second.ensembles[0].outputs[0])


def test_methods_are_left_out_that_are_not_named():
    y = labels(200)
    found = ensembles(crowd(y, 4, 100), judge_of(y), FULL, WHOLE, ("greedy",))
    assert {one.method for one in found.ensembles} == {"greedy", "single"}


def test_the_metric_of_the_run_decides():
    y = np.random.default_rng(0).integers(0, 2, 300)
    task = Task("multiclass", TASK.loss, "accuracy", False, True, 4)

    def ranked_first(metric):
        """One member has the classes right and the order of rows wrong, the other the reverse."""
        margin = np.random.default_rng(1).uniform(0.01, 0.4, 300)
        right = np.where(np.arange(300) % 10 == 0, -1, 1) * (2 * y - 1)
        accurate = 0.5 + right * np.where(right == 2 * y - 1, margin, 0.45)
        ordered = 0.55 + 0.2 * y + 0.1 * margin
        judge = Labelled(
            (task,), Labelled.of([task], [y]).labels, None, metric and find_metric(metric, task)
        )
        members = [
            Member(name, "", cost(900), (np.stack([1 - p, p], 1),), lambda: None)
            for name, p in (("accurate", accurate), ("ordered", ordered))
        ]
        return ensembles(members, judge, FULL, WHOLE).ensembles[0].members

    assert ranked_first(None) == ("accurate",)
    assert ranked_first("roc_auc") == ("ordered",)


@pytest.mark.parametrize(
    "fusion", [Average("learn"), Average("greedy"), Stack(folds=2), Cascade(cost=0.9, costs=(1, 3))]
)
def test_what_is_fitted_is_scored_on_rows_that_it_was_not_fitted_to(fusion):
    y = labels(250)
    outputs = [one.outputs for one in crowd(y, 2)]
    nest = Nest.stored(Evidence.stored(judge_of(y), outputs), seed=1)
    nested = nest.score(fusion)
    fold = nest.folds[0]
    head = fusion.fit_head(nest.evidence.take(fold.train))
    expected = head.predict(nest.evidence.take(fold.test).predictions)[0]
    np.testing.assert_array_equal(nested.outputs[0][fold.test], expected)


def test_a_meta_learner_that_learns_labels_by_heart_gains_nothing():
    y = labels(120)
    rng = np.random.default_rng(5)
    noise = [rng.dirichlet(np.ones(4), 120).astype("float32") for _ in range(8)]
    members = [Member(f"n{i}", "", cost(100), (p,), lambda: None) for i, p in enumerate(noise)]
    found = ensembles(members, judge_of(y), FULL, WHOLE)
    assert found.chosen(judge_of(y)).method == "single"


def claims(seed):
    """Whether an ensemble is claimed to be better where labels are random."""
    y = labels(400, 1000 + seed)
    rng = np.random.default_rng(seed)
    members = [
        member(f"m{i}", y, int(rng.choice([100, 250, 500])), 0.0, seed=100 * seed + i)
        for i in range(8)
    ]
    found = ensembles(members, judge_of(y), FULL, WHOLE, ("average", "greedy", "cascade"), seed)
    return found.chosen(judge_of(y)).method != "single"


@pytest.mark.long
def test_no_ensemble_is_better_on_random_labels():
    assert not any(claims(seed) for seed in range(20))


@pytest.mark.slow
def test_no_ensemble_is_better_on_random_labels_in_many_runs():
    assert not any(claims(seed) for seed in range(100))


def test_a_cascade_may_end_in_a_member_above_the_budget_when_the_mean_counts():
    y = labels(1500)
    members = [member("small", y, 100, 2.0, 1), member("big", y, 1000, 4.0, 2)]
    worst = ensembles(members, judge_of(y), Budget(macs=0.5), WHOLE)
    assert not [one for one in worst.ensembles if one.method == "cascade"]
    mean = ensembles(members, judge_of(y), Budget(macs=0.5, count="mean"), WHOLE)
    best = mean.chosen(judge_of(y))
    assert best.method == "cascade" and best.members == ("small", "big")
    assert best.cost.mean_macs <= 500 < best.cost.macs == 1100
    assert best.score.value > single_of(mean).score.value


def test_a_third_member_may_come_before_the_two_of_the_best_pair():
    y = labels(1500)
    kinds = (("tiny", 60, 1.2), ("small", 145, 2.6), ("big", 1000, 4.0))
    members = [member(name, y, cost, power, i + 1) for i, (name, cost, power) in enumerate(kinds)]
    budget = Budget(macs=0.15, count="mean")
    chains, _ = rated_chains(Pool.of(members, judge_of(y), budget, WHOLE))
    assert ("big", "small", "tiny") in {chain.names for chain in chains}


def test_the_best_chain_of_three_may_grow_from_another_pair_than_the_best():
    y = labels(600)
    kinds = (("a", 40, 1.9), ("b", 100, 2.2), ("c", 500, 2.7), ("d", 700, 3.4))
    members = [member(name, y, cost, power, i) for i, (name, cost, power) in enumerate(kinds)]
    budget = Budget(macs=0.25, count="mean")
    chains, _ = rated_chains(Pool.of(members, judge_of(y), budget, WHOLE))
    pair = next(chain for chain in chains if len(chain.members) == 2)
    assert (pair.names, chains[0].names) == (("b", "c"), ("a", "b", "d"))
    assert chains[0].merit[0] > pair.merit[0] + 0.02


def test_members_with_other_inputs_are_combined_only_with_multimodal():
    y = labels(300)
    members = [
        replace(one, inputs=(name,))
        for one, name in zip(crowd(y, 4, 200), ("image", "image", "text", "text"), strict=True)
    ]
    apart = ensembles(members, judge_of(y), FULL, WHOLE, ("average",))
    assert all(
        set(one.members) <= {"m1", "m2"} or set(one.members) <= {"m3", "m4"}
        for one in apart.ensembles
    )
    joined = ensembles(members, judge_of(y), FULL, WHOLE, ("average", "multimodal"))
    assert set(joined.ensembles[0].members) == {"m1", "m2", "m3", "m4"}


def test_regression_is_combined_by_squared_error():
    y = np.random.default_rng(0).normal(size=300)
    task = Task("regression", "mse", "mse", False, False, 1)
    members = [
        Member(
            f"r{i}",
            "",
            cost(100 + 50 * i),
            ((y + np.random.default_rng(i + 1).normal(size=300))[:, None],),
            lambda: None,
        )
        for i in range(4)
    ]
    judge = Labelled.of([task], [y], [members[0].outputs[0]])
    found = ensembles(members, judge, FULL, WHOLE)
    assert len(found.chosen(judge).members) == 4
    assert "cascade" in found.refused


def test_a_member_gains_what_the_best_ensemble_loses_without_it():
    y = labels(800)
    members = [*crowd(y, 4, 250, 1.5), member("weak", y, 250, 0.1, 60)]
    twin = replace(members[0], name="twin")
    found = gains([*members, twin], judge_of(y), FULL, WHOLE)
    assert max(found, key=found.get) in {"m2", "m3", "m4"}
    assert found["weak"] < min(found[f"m{i}"] for i in range(1, 5))
    # Of two equal members neither is missed.
    assert found["m1"].loss == pytest.approx(0, abs=1e-7)
    alone = gains(members[:1], judge_of(y), FULL, WHOLE)
    assert list(alone) == ["m1"]


def test_a_member_may_gain_by_the_part_of_the_budget_that_it_fills():
    y = labels(800)
    members = [member("big", y, 700, 2.0, 1), member("fits", y, 300, 1.2, 2)]
    members.append(member("better but too large", y, 600, 1.6, 3))
    found = gains(members, judge_of(y), FULL, WHOLE)
    assert found["fits"] > found["better but too large"]


def test_a_boosted_series_is_planned_within_budget_and_epochs():
    y = labels(200)
    members = [member("big", y, 800, 2.0, 1), *crowd(y, 2, 300)]
    (plan,) = trained_ensembles(members, judge_of(y), FULL, WHOLE, epochs=7)
    assert plan.members[0] in {"m1", "m2"} and plan.fusion.rounds == 3
    assert plan.epochs == 6 and plan.cost.macs == 900
    assert trained_ensembles(members[:1], judge_of(y), FULL, WHOLE, epochs=7) == ()


def test_a_member_without_finite_predictions_is_left_out_by_name():
    y = labels(200)
    broken = replace(member("broken", y, 250), outputs=(np.full((200, 4), np.nan),))
    found = ensembles([*crowd(y, 3, 250), broken], judge_of(y), FULL, WHOLE, ("average",))
    assert "NaN" in found.refused["broken"]
    assert all("broken" not in one.members for one in found.ensembles)
    assert "broken" not in gains([*crowd(y, 3, 250), broken], judge_of(y), FULL, WHOLE)


def test_a_cheap_member_gains_by_the_rows_that_it_saves_the_others():
    y = labels(1500)
    members = [
        member("small", y, 100, 2.0, 1),
        member("weak", y, 100, 0.2, 2),
        member("big", y, 1000, 4.0, 3),
    ]
    mean = gains(members, judge_of(y), Budget(macs=0.5, count="mean"), WHOLE)
    assert mean["small"] > mean["weak"] and mean["big"].metric > 0.02
    assert "big" not in gains(members, judge_of(y), Budget(macs=0.5), WHOLE)


def test_there_is_nothing_to_choose_when_no_member_keeps_the_budget():
    y = labels(100)
    found = ensembles(crowd(y, 2, 2000), judge_of(y), FULL, WHOLE)
    assert found.ensembles == () and gains(crowd(y, 2, 2000), judge_of(y), FULL, WHOLE) == {}
    with pytest.raises(WorkError, match="No candidate keeps the budget"):
        found.chosen(judge_of(y))
