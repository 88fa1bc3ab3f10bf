"""On random labels nothing is better than anything else, and the search does not claim it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import saikei as sk
from saikei.budget import Budget
from saikei.search.comparisons import SHIPPED_OR_ORIGINAL, compare_choices
from saikei.search.compose import Member, ensembles
from saikei.search.selection import choose_candidate
from tests.search.made_up import candidate, cost, judge_of_binary
from tests.search.small import data, dense, search

ROWS, CANDIDATES = 300, 12


def claims(seed: int) -> list[str]:
    """What a run on random labels would claim: a fused model, or that it beats the original."""
    rng = np.random.default_rng(seed)
    judge = judge_of_binary(rng.integers(0, 2, ROWS))

    def guesses() -> tuple[np.ndarray, ...]:
        return (1 / (1 + np.exp(-rng.normal(size=(ROWS, 1)))),)

    outputs = {f"c{number}": guesses() for number in range(CANDIDATES)} | {"original": guesses()}
    members = [
        Member(name, "knapsack", cost(10), one, model=lambda: None)  # type: ignore[arg-type]
        for name, one in outputs.items()
        if name != "original"
    ]
    found = ensembles(members, judge, Budget(macs=100), cost(100), ("average", "greedy"), seed)
    singles = [candidate(m.name, cost=cost(10)) for m in members]
    fused = []
    for number, ensemble in enumerate(t for t in found.ensembles if t.method != "single"):
        name = f"ensemble-{number}"
        outputs[name] = ensemble.outputs
        one = candidate(name, kind="fused", family=ensemble.method, members=ensemble.members)
        fused.append(replace(one, plan={"complexity": ensemble.complexity}))
    baseline = candidate("original", kind="original", fits=False, cost=cost(100))
    every = [
        replace(c, validation=judge.score(outputs[c.name])) for c in (baseline, *singles, *fused)
    ]
    chosen = choose_candidate(every, outputs, judge, "macs").chosen
    comparisons = compare_choices(every, outputs, judge, chosen, every[0])
    shipped = next(c for c in comparisons if c.question == SHIPPED_OR_ORIGINAL)
    gain = shipped.answer == "the shipped model: better"
    return [chosen.family] * (chosen.kind == "fused") + ["gain"] * gain


@pytest.mark.parametrize("runs", [20, pytest.param(100, marks=pytest.mark.slow)])
def test_nothing_is_claimed(runs: int) -> None:
    assert [claim for seed in range(runs) for claim in claims(seed)] == []


@pytest.mark.slow
def test_real_trainings_on_random_labels_claim_nothing() -> None:
    claimed = []
    for seed in range(3):
        rng = np.random.default_rng(seed)
        (x, _), (xv, _) = data().train, data().validation
        train, validation = ((part, rng.integers(0, 10, len(part))) for part in (x, xv))
        model = dense(seed)
        sk.fit(model, train, epochs=2, batch_size=16, seed=seed, progress=False)
        asked = {"methods": ["prune", "average", "greedy"], "effort": 8, "latency": False}
        result = search(
            model, None, train=train, validation=validation, test=None, seed=seed, **asked
        )
        claimed += [c.answer for c in result.run.comparisons if c.question == SHIPPED_OR_ORIGINAL]
        assert result.chosen.kind != "fused"
    assert "the shipped model: better" not in claimed


def test_what_is_there_is_claimed() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, ROWS)
    judge = judge_of_binary(labels)
    outputs = {
        "original": (np.where(rng.random((ROWS, 1)) < 0.6, labels[:, None], 1 - labels[:, None]),),
        "better": (np.where(rng.random((ROWS, 1)) < 0.9, labels[:, None], 1 - labels[:, None]),),
    }
    every = [
        replace(candidate(name, fits=name == "better"), validation=judge.score(one))
        for name, one in outputs.items()
    ]
    (comparison,) = compare_choices(every, outputs, judge, every[1], every[0])
    assert comparison.answer == "the shipped model: better"
