"""Greedy selection against selection that works everything out anew."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saikei.errors import DataError, FusionError
from saikei.fusion import fit_weights, select_weights
from saikei.fusion.average.candidates import MARGIN, MixtureCandidates
from saikei.scoring import Task, score_predictions
from tests.fusion.average.test_weights import MULTILABEL, SPARSE, TASKS, loss_of, random_case

few = settings(max_examples=25, deadline=None, derandomize=True)


def errors_of(task: Task, picks: tuple[int, ...], members: list, y: np.ndarray) -> float:
    total = np.sum([members[pick] for pick in picks], axis=0)
    return 1 - score_predictions(task, y, total).value


def prefix_weights(picks: tuple[int, ...], count: int, members: int) -> np.ndarray:
    return np.bincount(picks[:count], minlength=members) / count


@pytest.mark.parametrize("name", TASKS)
@few
@given(st.integers(2, 6), st.integers(1, 60), st.floats(0.05, 2.0), st.integers(0, 10_000))
def test_each_pick_is_the_best_there_was_and_its_loss_is_true(
    name: str, count: int, rows: int, noise: float, seed: int
) -> None:
    task = TASKS[name]
    y, members = random_case(task, count, rows, noise, seed)
    found = select_weights(task, members, y, rounds=6)
    for size, (pick, loss) in enumerate(zip(found.picks, found.losses, strict=True), start=1):
        weights = prefix_weights(found.picks, size, count)
        assert loss == pytest.approx(loss_of(task, weights, members, y), rel=1e-6, abs=2e-6)
        for other in range(count):
            tried = prefix_weights((*found.picks[: size - 1], other), size, count)
            assert loss <= loss_of(task, tried, members, y) + 2e-6, (size, pick, other)
    assert found.losses[-1] == min(found.losses)
    np.testing.assert_allclose(found.values, prefix_weights(found.picks, len(found.picks), count))


@pytest.mark.parametrize("name", ["sparse", "one-hot", "logits"])
@few
@given(st.integers(2, 6), st.integers(1, 60), st.floats(0.3, 3.0), st.integers(0, 10_000))
def test_selection_by_accuracy_counts_errors_as_argmax_does(
    name: str, count: int, rows: int, noise: float, seed: int
) -> None:
    task = TASKS[name]
    y, members = random_case(task, count, rows, noise, seed)
    # In eighths, so that classes tie exactly.
    members = [np.round(member * 8) / 8 for member in members]
    found = select_weights(task, members, y, rounds=6, metric="accuracy")
    for size, errors in enumerate(found.losses, start=1):
        picks = found.picks[:size]
        assert errors == pytest.approx(errors_of(task, picks, members, y), abs=1e-6)
        for other in range(count):
            tried = (*picks[:-1], other)
            assert errors <= errors_of(task, tried, members, y) + 1e-6


@few
@given(
    members=st.integers(2, 15),
    noise=st.sampled_from([0.05, 0.5, 1.5, 4.0]),
    soft=st.booleans(),
    seed=st.integers(0, 10_000),
)
def test_what_the_bound_leaves_out_could_not_have_been_picked(members, noise, soft, seed) -> None:
    rng = np.random.default_rng(seed)
    probabilities = np.clip(1 / (1 + np.exp(-noise * rng.normal(size=(70, members)))), 1e-7, 1)
    probabilities[:, -1] = probabilities[:, 0]
    importance = rng.random(70) if soft else np.ones(70)
    importance /= importance.sum()
    candidates = MixtureCandidates(probabilities, importance, 2.0)
    total = np.zeros(70)
    for size in range(1, 31):
        true = -2.0 * importance @ np.log((total[:, None] + probabilities) / size)
        joined = candidates.joined()
        near = true <= true.min() + MARGIN / 2
        np.testing.assert_allclose(joined[near], true[near], rtol=0, atol=1e-12)
        assert (joined <= true + 1e-9).all()
        assert (joined[~near] > true.min() + MARGIN / 2 - 1e-12).all()
        every = candidates.joined(np.arange(members))
        np.testing.assert_allclose(every, true, rtol=0, atol=1e-12)
        best = int(joined.argmin())
        total += probabilities[:, best]
        candidates.take(best)


def test_greedy_weights_are_never_better_than_the_certified_ones() -> None:
    for name, task in TASKS.items():
        y, members = random_case(task, 5, 80, 1.0, 3)
        learned = fit_weights(task, members, y)
        assert select_weights(task, members, y).losses[-1] >= learned.loss - 2e-6, name


def test_a_member_that_is_always_right_is_taken_alone() -> None:
    y, members = random_case(SPARSE, 3, 50, 1.0, 0)
    sure = np.eye(4)[y]
    found = select_weights(SPARSE, [*members, sure], y)
    assert found.picks == (3,)
    assert found.values == (0, 0, 0, 1)


def test_twins_do_not_share_a_place() -> None:
    y, members = random_case(SPARSE, 2, 50, 1.0, 0)
    found = select_weights(SPARSE, [members[0], members[0], members[1], members[1]], y)
    assert found.values[1] == found.values[3] == 0


def test_bags_average_selections_among_half_of_the_members() -> None:
    y, members = random_case(MULTILABEL, 6, 60, 1.5, 1)
    one = select_weights(MULTILABEL, members, y, bags=8, seed=3)
    assert sum(one.values) == pytest.approx(1)
    assert one == select_weights(MULTILABEL, members, y, bags=8, seed=3)
    plain = select_weights(MULTILABEL, members, y)
    used = [sum(value > 0 for value in found.values) for found in (one, plain)]
    assert used[0] >= used[1]


def test_several_outputs_are_selected_for_together() -> None:
    y1, first = random_case(SPARSE, 3, 40, 1.0, 0)
    y2, second = random_case(MULTILABEL, 3, 40, 1.0, 1)
    members = [list(pair) for pair in zip(first, second, strict=True)]
    found = select_weights((SPARSE, MULTILABEL), members, [y1, y2], rounds=5)
    weights = np.array(found.values)
    together = loss_of(SPARSE, weights, first, y1) + loss_of(MULTILABEL, weights, second, y2)
    assert found.losses[-1] == pytest.approx(together, abs=2e-6)


def test_what_cannot_be_selected_is_refused() -> None:
    y, members = random_case(SPARSE, 2, 10, 1.0, 0)
    with pytest.raises(FusionError, match="at least two"):
        select_weights(SPARSE, members[:1], y)
    with pytest.raises(FusionError, match="rounds=0"):
        select_weights(SPARSE, members, y, rounds=0)
    with pytest.raises(FusionError, match="unknown"):
        select_weights(SPARSE, members, y, metric="auc")  # type: ignore[arg-type]
    y2, binary = random_case(MULTILABEL, 2, 10, 1.0, 0)
    with pytest.raises(FusionError, match="one multiclass output"):
        select_weights(MULTILABEL, binary, y2, metric="accuracy")
    with pytest.raises(DataError, match="Member 2 predicts NaN"):
        select_weights(SPARSE, [members[0], members[1] * np.nan], y)
    with pytest.raises(DataError, match="from -1 to"):
        select_weights(SPARSE, members, np.where(y == y[0], -1, y))
    with pytest.raises(DataError, match="do not fit"):
        select_weights(SPARSE, members, y[:5])
