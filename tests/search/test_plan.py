"""Points of a study follow from the seed and the results before them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from saikei.search.race import space_of
from saikei.search.study import STARTUP_TRIALS, Study

SPACE = space_of(None, 32)
FIRST = SPACE.first(2)


def drawn(
    path: Path, seed: int, count: int, restart: bool = False, sign: float = 1.0
) -> list[Mapping[str, Any]]:
    """Points of a study whose results are a function of the point."""

    def open_study() -> Study:
        return Study(path, SPACE.ranges, FIRST, seed)

    study = open_study()
    points: list[Mapping[str, Any]] = []
    for number in range(count):
        if restart and number in (2, STARTUP_TRIALS + 1):
            study.close()
            study = open_study()
        point = study.ask(number)
        points.append(point)
        worth = None if number == 4 else (sign * point["learning_rate"], 100.0 + number)
        study.tell(point, worth, {"number": str(number)})
    study.close()
    return points


# One trial fails and counts for nothing, so the last of these is the first that is modelled.
COUNT = STARTUP_TRIALS + 2


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> list[Mapping[str, Any]]:
    return drawn(tmp_path_factory.mktemp("study") / "once.db", 3, COUNT)


def test_the_same_seed_draws_the_same_points_also_when_the_study_is_reopened(
    once: list[Mapping[str, Any]], tmp_path: Path
) -> None:
    assert drawn(tmp_path / "b.db", 3, COUNT, restart=True) == once
    start = len(FIRST)
    other = drawn(tmp_path / "c.db", 4, start + 1)
    assert other[:start] == once[:start]
    assert other[start] != once[start]


def test_the_sampler_learns_from_the_results(once: list[Mapping[str, Any]], tmp_path: Path) -> None:
    other = drawn(tmp_path / "study.db", 3, COUNT, sign=-1.0)
    assert other[:-1] == once[:-1]
    assert other[-1] != once[-1]


def test_a_finished_trial_is_remembered(tmp_path: Path) -> None:
    points = drawn(tmp_path / "study.db", 0, 3)
    study = Study(tmp_path / "study.db", SPACE.ranges, (), 0)
    assert study.count == 3
    assert [study.ask(number) for number in range(3)] == points
    study.close()
