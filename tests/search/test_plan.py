"""Plans follow from the seed alone, and rivals differ in their weights alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from saikei import Budget
from saikei.edits import PruneChannels
from saikei.search.plan import Effort, derived_seed, edit_for, plans_for
from saikei.search.space import Point, first_points, space
from saikei.search.study import STARTUP_TRIALS, Study
from tests.search.made_up import cost

EFFORT = Effort(epochs=7, batch_size=16, seed=5)
WHOLE = cost(macs=1000, params=600, latency=8.0)


def drawn(
    path: Path, seed: int, count: int, restart: bool = False, sign: float = 1.0
) -> list[Point]:
    """Points of a study whose results are a function of the point."""
    parents = ["original"]

    def open_study() -> Study:
        first = [point.to_dict() for point in first_points(parents)]
        return Study(path, space(parents), first, seed)

    study = open_study()
    points: list[Point] = []
    for number in range(count):
        if restart and number in (2, STARTUP_TRIALS + 1):
            study.close()
            study = open_study()
        point = Point(**study.ask(number))
        points.append(point)
        worth = None if number == 4 else (sign * point.learning_rate, 100.0 / point.siblings)
        study.tell(point.to_dict(), worth, {"number": str(number)})
    study.close()
    return points


# One trial fails and counts for nothing, so the last of these is the first that is modelled.
COUNT = STARTUP_TRIALS + 2


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> list[Point]:
    return drawn(tmp_path_factory.mktemp("study") / "once.db", 3, COUNT)


def test_the_same_seed_draws_the_same_points_also_when_the_study_is_reopened(
    once: list[Point], tmp_path: Path
) -> None:
    assert drawn(tmp_path / "b.db", 3, COUNT, restart=True) == once
    other = drawn(tmp_path / "c.db", 4, len(first_points(["original"])) + 1)
    start = len(first_points(["original"]))
    assert other[:start] == once[:start]
    assert other[start] != once[start]


def test_the_sampler_learns_from_the_results(once: list[Point], tmp_path: Path) -> None:
    other = drawn(tmp_path / "study.db", 3, COUNT, sign=-1.0)
    assert other[:-1] == once[:-1]
    assert other[-1] != once[-1]


def test_a_finished_trial_is_remembered_with_its_notes(tmp_path: Path) -> None:
    points = drawn(tmp_path / "study.db", 0, 3)
    study = Study(tmp_path / "study.db", space(["original"]), (), 0)
    assert study.count == 3
    assert [Point(**study.ask(number)) for number in range(3)] == points
    assert study.notes(1) == {"number": "1"}
    assert study.notes(3) == {}
    study.close()


def test_the_first_points_hold_siblings_for_every_model() -> None:
    points = first_points(["a", "b"])
    assert {(p.parent, p.siblings) for p in points} == {(p, s) for p in "ab" for s in (1, 2, 3)}
    for point in points:
        for name, value in point.to_dict().items():
            distribution = space(["a", "b"])[name]
            assert distribution._contains(distribution.to_internal_repr(value))


def test_the_rival_is_trained_as_the_pruned_model_is() -> None:
    point = Point("original", 2, learning_rate=4e-3, temperature=3.0, alpha=0.2)
    edit = edit_for(point, Budget(macs=0.5), WHOLE, seed=1)
    pruned, fresh, labels = plans_for(0, point, edit, EFFORT, ablate=True)
    assert [p.name for p in (pruned, fresh, labels)] == ["a1-pruned", "a1-fresh", "a1-labels"]
    assert pruned.seed != fresh.seed
    as_pruned = {"name": pruned.name, "kind": pruned.kind, "like": None}
    gentle = {"seed": pruned.seed, "learning_rate": pruned.learning_rate}
    assert replace(fresh, **as_pruned, **gentle) == pruned
    # Weights that are carried over are trained at a fifth of the rate, up to a highest one.
    assert fresh.learning_rate == point.fresh_rate == 1e-2
    assert Point("original", 1).fresh_rate == pytest.approx(3e-3)
    # The ablation leaves the teacher out, and nothing else.
    assert replace(labels, **as_pruned) == pruned
    assert fresh.like == labels.like == pruned.name
    assert (pruned.epochs, pruned.learning_rate) == (7, 4e-3)


def test_only_the_seed_changes_the_plans_of_a_point() -> None:
    point = Point("original", 1, importance="random")

    def plans(seed: int) -> list[dict[str, object]]:
        edit = edit_for(point, Budget(macs=0.5), WHOLE, derived_seed(seed, 0, 2))
        effort = replace(EFFORT, seed=seed)
        return [plan.to_dict() for plan in plans_for(0, point, edit, effort, ablate=True)]

    assert plans(1) == plans(1)
    assert plans(1) != plans(2)


def test_seeds_of_different_uses_differ() -> None:
    paths = [(number, use) for number in range(20) for use in range(3)]
    seeds = {derived_seed(seed, *path) for seed in range(3) for path in paths}
    assert len(seeds) == 180


@pytest.mark.parametrize("siblings", [1, 2, 3, 4])
def test_siblings_share_the_budget(siblings: int) -> None:
    edit = edit_for(Point("original", siblings), Budget(macs=0.5, params=300), WHOLE, seed=0)
    assert isinstance(edit, PruneChannels)
    assert isinstance(edit.keep, Budget)
    limits = edit.keep.limits(WHOLE)
    assert siblings * limits["macs"] <= 500
    assert siblings * limits["params"] <= 300
