"""Results of parts of trainings come back as they were stored, or are made again."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from saikei.errors import DataError, DiskError, WorkError
from saikei.executors import TaskFailure
from saikei.search.folder import RunFolder
from saikei.search.race.plan import RungResult
from saikei.search.rungs import RungFolder
from saikei.training.parts import TrainingState
from tests.search.made_up import candidate
from tests.search.test_damage import GARBAGE, cut_in_half, flipped, overwritten

MADE = candidate()


def result(epoch: int) -> RungResult:
    rng = np.random.default_rng(epoch)
    state = TrainingState(
        epoch=epoch,
        weights=(rng.normal(size=(3, 2)), rng.normal(size=2).astype(ml_dtypes.bfloat16)),
        optimizer=(np.array(epoch, "int64"), rng.normal(size=(3, 2)).astype("float32")),
        best_weights=(rng.normal(size=(3, 2)), np.zeros((), ml_dtypes.bfloat16)),
        best_loss=math.inf,
        best_epoch=0,
        learning_rate=0.01,
        start={"val_loss": 0.5},
        held=(0, 2),
    )
    return RungResult(
        state=state,
        outputs=tuple(rng.normal(size=(5, 3)) for _ in range(12)),
        score=MADE.validation,
        before=MADE.before,
        curves={"loss": (0.5, math.nan)},
        seconds=1.5,
        cost=MADE.cost,
    )


def assert_equal(found: object, expected: object) -> None:
    """The same fields, arrays bit by bit."""
    assert type(found) is type(expected)
    for f in fields(expected):  # type: ignore[arg-type]
        one, other = getattr(found, f.name), getattr(expected, f.name)
        if isinstance(other, tuple) and other and isinstance(other[0], np.ndarray):
            assert [(a.dtype, a.shape, a.tobytes()) for a in one] == [
                (a.dtype, a.shape, a.tobytes()) for a in other
            ]
        elif isinstance(other, TrainingState):
            assert_equal(one, other)
        else:
            assert repr(one) == repr(other)


@pytest.fixture
def rungs(tmp_path: Path) -> RungFolder:
    """A folder with three parts of one training."""
    folder = RungFolder(tmp_path / "rungs")
    for epoch in (1, 3, 9):
        folder.store("a", epoch, result(epoch))
    return folder


def test_a_result_comes_back_bit_by_bit(rungs: RungFolder) -> None:
    assert_equal(rungs.load("a", 9), result(9))
    assert_equal(rungs.load("a", 3), result(3))
    assert rungs.load("a", 27) is None
    assert rungs.load("b", 9) is None


def test_of_the_states_the_last_two_are_kept(rungs: RungFolder) -> None:
    assert_equal(rungs.load("a", 1), replace(result(1), state=None))
    assert not (rungs.path / "a" / "1" / "state.npz").exists()


@pytest.mark.parametrize("error", [DataError("a: b."), WorkError("c")])
def test_a_failure_comes_back(rungs: RungFolder, error: WorkError | DataError) -> None:
    rungs.store("b", 1, TaskFailure(error, "ValueError", "trace"))
    found = rungs.load("b", 1)
    assert isinstance(found, TaskFailure)
    assert type(found.error) is type(error)
    assert (str(found.error), found.kind) == (str(error), "ValueError")


@pytest.mark.parametrize("damage", [cut_in_half, flipped, overwritten])
@pytest.mark.parametrize("part", ["validation.npz", "state.npz"])
def test_a_damaged_part_is_missing_and_continues_from_the_state_before(
    rungs: RungFolder, part: str, damage: Callable[[Path], None]
) -> None:
    damage(rungs.path / "a" / "9" / part)
    assert rungs.load("a", 9) is None
    assert_equal(rungs.load("a", 3), result(3))
    # Its own state was deleted, but nothing needs it.
    assert isinstance(rungs.load("a", 1), RungResult)


@pytest.mark.parametrize("content", [*GARBAGE, b'{"failure": 3}', b'{"failure": {}}'])
def test_a_part_whose_state_is_needed_and_gone_is_made_again(
    rungs: RungFolder, content: bytes
) -> None:
    (rungs.path / "a" / "3" / "result.json").write_bytes(content)
    assert rungs.load("a", 3) is None
    assert rungs.load("a", 1) is None
    rungs.store("a", 1, result(1))
    assert_equal(rungs.load("a", 1), result(1))


def test_what_was_not_written_to_its_end_was_never_there(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run", {})
    folder.begin({"model": "m"})
    folder.rungs.store("a", 1, result(1))
    draft = folder.path / "rungs" / "a" / ".draft-x" / "3"
    draft.mkdir(parents=True)
    (draft / "result.json").write_text("{")
    assert_equal(folder.rungs.load("a", 1), result(1))
    folder.begin({"model": "m"})
    assert not draft.parent.exists()
    assert_equal(folder.rungs.load("a", 1), result(1))


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DiskError, match="file' cannot be written"):
        RungFolder(tmp_path / "file").store("a", 1, result(1))
