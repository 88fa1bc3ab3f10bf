"""Averages: only what fits the budget is tried, and learned weights are scored out of fold."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import KFold

from saikei.fusion import fit_weights
from saikei.scoring.labelled import Labelled
from saikei.search import averages
from saikei.search.averages import (
    FOLDS,
    KEPT,
    MOST_MEMBERS,
    Sibling,
    choose_averages,
    mean_of,
    within,
)
from tests.search.made_up import BINARY, cost, judge_of_binary


def noisy(judge: Labelled, noise: float, seed: int, name: str = "", macs: int = 10) -> Sibling:
    """A sibling that is right more often the less noise it has."""
    rng = np.random.default_rng(seed)
    margin = 2 * judge.labels[0].values - 1 + noise * rng.normal(size=judge.labels[0].shape)
    return Sibling(name or f"s{seed}", cost(macs), (1 / (1 + np.exp(-2 * margin)),))


JUDGE = judge_of_binary(np.random.default_rng(0).integers(0, 2, 120))


@settings(max_examples=30, deadline=None)
@given(macs=st.lists(st.integers(1, 60), min_size=1, max_size=6), limit=st.integers(10, 120))
def test_every_set_that_fits_is_looked_at_and_no_other(macs: list[int], limit: int) -> None:
    siblings = [noisy(JUDGE, 1.0, i, macs=m) for i, m in enumerate(macs)]
    sizes = range(2, MOST_MEMBERS + 1)
    teams = [t for size in sizes for t in itertools.combinations(siblings, size)]
    fitting = [t for t in teams if sum(s.cost.macs for s in t) <= limit]
    choice = choose_averages(siblings, JUDGE, {"macs": limit}, seed=0)
    assert choice.considered == len(fitting)
    by_name = {s.name: s for s in siblings}
    for plan in choice.plans:
        assert within([by_name[name] for name in plan.members], {"macs": limit})
    if fitting:
        best = max(JUDGE.score(mean_of([s.outputs for s in t])).value for t in fitting)
        assert JUDGE.score(choice.plans[0].outputs).value == best


def test_every_limit_of_the_budget_counts() -> None:
    pair = [Sibling(n, cost(macs=10, params=80), noisy(JUDGE, 1, 1).outputs) for n in "ab"]
    assert within(pair, {"macs": 20, "params": 160})
    assert not within(pair, {"macs": 20, "params": 159})
    assert choose_averages(pair, JUDGE, {"macs": 20, "params": 159}, 0).plans == ()


def test_many_siblings_are_grown_into_sets_that_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    siblings = [noisy(JUDGE, 1.0 + 0.1 * i, i, macs=10 + i) for i in range(8)]
    limits = {"macs": 36}
    every = choose_averages(siblings, JUDGE, limits, 0)
    monkeypatch.setattr(averages, "MOST_SETS", 1)
    grown = choose_averages(siblings, JUDGE, limits, 0)
    assert 0 < grown.considered < every.considered
    by_name = {s.name: s for s in siblings}
    for plan in grown.plans:
        assert len(set(plan.members)) == len(plan.members)
        assert within([by_name[name] for name in plan.members], limits)


def test_learned_weights_are_scored_on_folds_that_they_were_not_fitted_on() -> None:
    pair = [noisy(JUDGE, 1.5, 1), noisy(JUDGE, 1.7, 2)]
    plans = choose_averages(pair, JUDGE, {"macs": 20}, seed=7).plans
    learned = next(plan for plan in plans if plan.learned)
    labels = JUDGE.labels[0]
    for seen, unseen in KFold(FOLDS, shuffle=True, random_state=7).split(labels):
        weights = fit_weights(BINARY, [s.outputs[0][seen] for s in pair], labels[seen]).values
        expected = sum(w * s.outputs[0][unseen] for w, s in zip(weights, pair, strict=True))
        np.testing.assert_allclose(learned.outputs[0][unseen], expected, rtol=1e-12)
    shipped = fit_weights(BINARY, [s.outputs[0] for s in pair], labels).values
    np.testing.assert_allclose(learned.weights, shipped)


def test_on_noise_learned_weights_do_not_look_better_than_chance() -> None:
    # Fitted and scored on the same rows, the weights of noise beat equal ones; out of fold not.
    gains: list[float] = []
    leaks: list[float] = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        judge = judge_of_binary(rng.integers(0, 2, 60))
        said = [(rng.uniform(0.05, 0.95, (60, 1)),) for _ in range(4)]
        team = [Sibling(f"s{i}", cost(1), outputs) for i, outputs in enumerate(said)]
        plans = choose_averages(team, judge, {"macs": 100}, seed).plans
        for plan in (p for p in plans if p.learned):
            members = [s.outputs for s in team if s.name in plan.members]
            leaky = judge.score(mean_of(members, plan.weights)).loss
            equal = judge.score(mean_of(members)).loss
            gains.append(equal - judge.score(plan.outputs).loss)
            leaks.append(equal - leaky)
    assert len(gains) >= 10
    assert min(leaks) >= -1e-9
    assert np.mean(leaks) > 0
    assert np.mean(gains) < np.mean(leaks) / 2


def test_of_the_learned_weights_those_that_score_best_out_of_fold_are_kept() -> None:
    for seed in range(5):
        siblings = [noisy(JUDGE, 1.5 + 0.1 * i, 10 * seed + i) for i in range(4)]
        plans = choose_averages(siblings, JUDGE, {"macs": 20}, seed).plans
        by_name = {s.name: s for s in siblings}
        teams = [[by_name[name] for name in p.members] for p in plans if not p.learned]
        every = [plan for team in teams if (plan := averages._learned(team, JUDGE, seed))]
        assert len(every) == KEPT
        kept = next(plan for plan in plans if plan.learned)
        scores = [JUDGE.score(plan.outputs) for plan in every]
        best = max(range(KEPT), key=lambda i: (scores[i].value, -scores[i].loss))
        assert kept.members == every[best].members


def test_weights_that_go_to_one_member_are_no_average() -> None:
    perfect = noisy(JUDGE, 0.0, 1)
    wrong = Sibling("wrong", cost(10), (1 - perfect.outputs[0],))
    plans = choose_averages([perfect, wrong], JUDGE, {"macs": 20}, 0).plans
    assert [plan.learned for plan in plans] == [False]


def test_the_choice_depends_neither_on_the_order_nor_on_the_run() -> None:
    siblings = [noisy(JUDGE, 1.0, i) for i in range(5)]
    first = choose_averages(siblings, JUDGE, {"macs": 30}, 1)
    again = choose_averages(siblings, JUDGE, {"macs": 30}, 1)
    turned = choose_averages(siblings[::-1], JUDGE, {"macs": 30}, 1)
    assert [p.members for p in first.plans] == [p.members for p in again.plans]
    assert [p.weights for p in first.plans] == [p.weights for p in again.plans]
    assert [set(p.members) for p in first.plans] == [set(p.members) for p in turned.plans]
    assert len([p for p in first.plans if not p.learned]) == KEPT


def test_too_few_samples_for_folds_learn_nothing() -> None:
    judge = judge_of_binary([0, 1] * (FOLDS - 1))
    pair = [noisy(judge, 1.5, 1), noisy(judge, 1.7, 2)]
    plans = choose_averages([replace(s) for s in pair], judge, {"macs": 20}, 0).plans
    assert [plan.learned for plan in plans] == [False]
