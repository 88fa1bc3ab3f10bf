"""A driver that is killed at any step, over executor and folder, ends as if it had not been."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from saikei.executors import Inline
from saikei.search.folder import RunFolder, locked
from saikei.search.race import Driver, RungResult, race, race_rivals
from saikei.search.rungs import RungFolder
from saikei.writing import write_text
from tests.kills import contents, killed
from tests.search.made_up import candidate
from tests.search.race.test_race import ENTRIES, SCHEDULE, SPACE, Made, by_score, made_up
from tests.search.test_rungs import result

FINGERPRINT = {"model": "m", "threads": "2"}
RUNGS = (1, 3, 9)
NAMES = ("a", "b", "c")


def advanced(shared: float, task: tuple[str, int, RungResult | None]) -> RungResult:
    """A training that depends on all that was trained before."""
    name, epoch, before = task
    made = result(epoch)
    assert made.state is not None
    weights = (np.full((3, 2), shared + ord(name[0])),)
    if before is not None:
        assert before.state is not None, f"the state of {name} is gone"
        weights = (before.state.weights[0] * 1.5 + epoch,)
    return replace(made, state=replace(made.state, weights=weights), outputs=weights)


def toy_search(path: Path) -> None:
    """What a search does with its folder, without models."""
    with locked(path):
        folder = RunFolder(path, {})
        folder.check(FINGERPRINT)
        if folder.record.is_file():
            return
        folder.begin(FINGERPRINT)
        names = list(NAMES)
        for begin, end in zip((0, *RUNGS), RUNGS, strict=False):
            results = _rung(folder, names, begin, end)
            # The last one of each rung goes no further.
            names = sorted(names, key=lambda n: float(results[n].outputs[0].sum()))[1:] or names
        for name in NAMES:
            made = candidate(name, plan={"name": name})
            if folder.finished(name, made.plan) is None:
                folder.save(replace(made, kind="original"), None, result(1).outputs)
        write_text(folder.record, json.dumps({"names": names}))


def _rung(folder: RunFolder, names: list[str], begin: int, end: int) -> dict[str, Any]:
    missing = [name for name in names if folder.rungs.load(name, end) is None]
    tasks: list[Any] = [(n, end, folder.rungs.load(n, begin) if begin else None) for n in missing]
    Inline().run(
        advanced, 27.0, tasks, lambda i, outcome: folder.rungs.store(missing[i], end, outcome)
    )
    return {name: folder.rungs.load(name, end) for name in names}


@pytest.mark.slow
def test_a_kill_at_every_step_changes_nothing(tmp_path: Path) -> None:
    toy_search(tmp_path / "whole")
    expected = contents(tmp_path / "whole")
    assert {"run.json", "rungs/c/9/state.npz", "candidates/c/result.json"} < set(expected)
    step = 0
    while killed(toy_search, folder := tmp_path / str(step), step):
        assert not killed(toy_search, folder, -1)
        assert contents(folder) == expected, f"after a kill at step {step}"
        step += 1
    assert step > 50


def test_kills_in_a_row_change_nothing(tmp_path: Path) -> None:
    toy_search(tmp_path / "whole")
    folder, kills = tmp_path / "run", 0
    # Each session gets a few steps further than the one before.
    while killed(toy_search, folder, 10 + 3 * kills):
        kills += 1
    assert kills > 3
    assert contents(folder) == contents(tmp_path / "whole")


def raced(path: Path) -> None:
    """The race and its rivals on made-up curves, with what they store."""
    path.mkdir(exist_ok=True)
    rungs = RungFolder(path / "rungs")
    driver = Driver(Made(), Inline(), rungs.load, rungs.store, made_up)
    study = path / "study.db"
    racers = race(ENTRIES, SCHEDULE, SPACE, driver, by_score, seed=0, study=study)
    winner = max(racers, key=lambda racer: racer.epoch)
    rivals = race_rivals(winner, SCHEDULE, SPACE, driver, 0)
    shown = [racer.plan.to_dict() for racer in (*racers, *rivals)]
    spent = sorted((family, epoch, n) for (family, epoch), n in driver.spent.items())
    write_text(path / "end.json", json.dumps([shown, spent]))


@pytest.mark.long
def test_a_race_that_is_killed_again_and_again_ends_the_same(tmp_path: Path) -> None:
    raced(tmp_path / "whole")
    folder, kills = tmp_path / "run", 0
    while killed(raced, folder, 10 + 7 * kills):
        kills += 1
    assert kills > 3
    RunFolder(folder, {}).begin(FINGERPRINT)
    RunFolder(tmp_path / "whole", {}).begin(FINGERPRINT)
    assert contents(folder, ["study.db"]) == contents(tmp_path / "whole", ["study.db"])
