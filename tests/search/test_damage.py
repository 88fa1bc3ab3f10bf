"""A damaged part of a run folder is made again or named, and never half read."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest

from saikei.errors import DiskError, InputError
from saikei.search.folder import LOCK, RunFolder, locked
from saikei.search.race import space_of
from saikei.search.study import Study
from tests.search.made_up import candidate

FINGERPRINT = {"model": "m", "data": "d"}
GARBAGE = [b"", b"\x00\xff garbage", b"[" * 100_000, b'{"name": NaN}', b"null"]


def cut_in_half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def overwritten(path: Path) -> None:
    path.write_bytes(b"garbage")


# --- the folder ---


@pytest.fixture
def stored(tmp_path: Path) -> RunFolder:
    """A folder with one candidate."""
    folder = RunFolder(tmp_path / "run", {})
    folder.begin(FINGERPRINT)
    made = candidate(recipe={"edits": []}, plan={"seed": 1})
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    folder.save(made, model, (np.arange(6.0).reshape(3, 2),))
    assert folder.finished("01-knapsack", {"seed": 1}) == made
    return folder


@pytest.mark.parametrize("damage", [Path.unlink, cut_in_half, flipped, overwritten])
@pytest.mark.parametrize("part", ["result.json", "validation.npz", "model.keras"])
def test_a_candidate_with_a_damaged_part_is_made_again(
    stored: RunFolder, part: str, damage: Callable[[Path], None]
) -> None:
    damage(stored.candidates / "01-knapsack" / part)
    known = stored.finished("01-knapsack", {"seed": 1})
    # One flipped bit in text may be another text; that it is read whole is all that can be known.
    assert known is None or (part, damage) == ("result.json", flipped)


@pytest.mark.parametrize("content", GARBAGE)
def test_a_record_of_a_candidate_that_is_none_is_not_read(
    stored: RunFolder, content: bytes
) -> None:
    (stored.candidates / "01-knapsack" / "result.json").write_bytes(content)
    assert stored.finished("01-knapsack", {"seed": 1}) is None


@pytest.mark.parametrize("damage", [Path.unlink, cut_in_half, overwritten])
def test_a_damaged_recipe_is_written_again_from_the_record(
    stored: RunFolder, damage: Callable[[Path], None]
) -> None:
    recipe = stored.candidates / "01-knapsack" / "recipe.json"
    damage(recipe)
    assert stored.finished("01-knapsack", {"seed": 1}) is not None
    assert json.loads(recipe.read_text()) == {"edits": []}


@pytest.mark.parametrize("content", [*GARBAGE, b'{"model": 3}', b"[]"])
def test_a_damaged_fingerprint_is_named(stored: RunFolder, content: bytes) -> None:
    (stored.path / "fingerprint.json").write_bytes(content)
    with pytest.raises(InputError, match="it is unknown which run .* give out= another") as refused:
        stored.check(FINGERPRINT)
    assert "fingerprint" in str(refused.value) and "\n" not in str(refused.value)


# --- the study ---


def study_at(path: Path) -> Study:
    space = space_of(None, 32)
    return Study(path, space.ranges, space.first(2), seed=0)


def other_database(path: Path) -> None:
    path.unlink()
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE studies (study_id INTEGER)")
    database.close()


def other_point(path: Path) -> None:
    with sqlite3.connect(path) as database:
        database.execute("UPDATE trial_params SET param_name = 'speed' WHERE param_id = 1")
    database.close()


@pytest.mark.sampled
@pytest.mark.parametrize(
    "damage", [cut_in_half, overwritten, other_database, other_point, Path.unlink]
)
def test_a_damaged_study_is_begun_anew_and_asks_for_the_same(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    study = study_at(tmp_path / "study.db")
    asked = []
    for number in range(2):
        asked.append(study.ask(number))
        study.tell(asked[-1], (0.5, 100.0 + number), {})
    study.close()
    damage(tmp_path / "study.db")
    again = study_at(tmp_path / "study.db")
    assert again.count == 0
    for number in range(2):
        assert again.ask(number) == asked[number]
        again.tell(asked[number], (0.5, 100.0 + number), {})
    assert again.ask(2) == again.ask(2)
    again.close()


def test_a_study_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(DiskError, match=r"study\.db' cannot be written") as refused:
        study_at(tmp_path / "missing" / "study.db")
    assert "\n" not in str(refused.value)


# --- two at once ---


def test_only_one_works_in_a_folder(tmp_path: Path) -> None:
    with locked(tmp_path / "run"):
        at_work = r"Another process is running in '.*run'"
        with pytest.raises(InputError, match=at_work), locked(tmp_path / "run"):
            pass
        assert (tmp_path / "run" / LOCK).is_file()
    # Nothing was written in it.
    assert list(tmp_path.iterdir()) == []
    with locked(tmp_path / "run"):
        (tmp_path / "run" / "file").touch()
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["file"]


def test_a_lock_that_a_kill_left_keeps_nobody_out(tmp_path: Path) -> None:
    (tmp_path / LOCK).touch()
    with locked(tmp_path):
        pass
