"""A search that is stopped or damaged: the same call ends as if nothing had happened."""

from __future__ import annotations

import importlib.util
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import saikei as sk
from saikei.errors import DiskError, InputError
from saikei.search import Result
from saikei.search.events import Event
from saikei.search.folder import locked
from tests.kills import contents
from tests.search.small import BRIEF, LEAST, data, dense, search
from tests.search.test_damage import flipped, overwritten
from tests.search.test_optimize import assert_same

RAY = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is an extra")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Result:
    """A small search that was not stopped."""
    return search(dense(), tmp_path_factory.mktemp("small") / "run", **BRIEF)


@pytest.mark.long
def test_ctrl_c_ends_with_a_report_and_the_same_call_continues(
    small: Result, tmp_path: Path
) -> None:
    def stop(event: Event) -> None:
        if event.kind == "trained" and event.values["name"].startswith("02"):
            raise KeyboardInterrupt

    # The test data has no part in the search: without it, all else is the same.
    arguments = {**BRIEF, "test": None}
    run = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt) as stopped:
        search(dense(), run, events=stop, **arguments)
    assert stopped.value.__notes__ == [f"The report of what is there: {run / 'report.html'}."]
    assert (run / "report.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    assert not (run / "run.json").exists()
    stamps = {p: p.stat().st_mtime_ns for p in run.glob("rungs/*/*/result.json")}
    assert stamps
    log = tmp_path / "events.jsonl"
    again = search(dense(), run, events=log, **arguments)
    assert {p: p.stat().st_mtime_ns for p in stamps} == stamps
    assert again.run.test is None
    assert_same(again, small)
    events = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    seconds = [one["seconds"] for one in events]
    assert seconds == sorted(seconds)
    assert events[-1]["event"] == "finished"
    assert events[-1]["chosen"] == again.chosen.name
    assert sum(e["epochs"] for e in events if e["event"] == "trained") == sum(
        one.epochs for one in again.run.effort
    )


def test_another_budget_is_answered_from_the_same_run(small: Result) -> None:
    smaller = small.resolve(sk.Budget(macs=0.15), data().train)
    whole = sk.profile(dense(), latency=False)
    assert sk.profile(smaller.model, latency=False).macs <= 0.15 * whole.macs
    assert smaller.structure.predicted >= 0
    larger = small.resolve(sk.Budget(macs=1.0))
    macs = [sk.profile(one.model, latency=False).macs for one in (smaller, larger)]
    assert macs[1] > macs[0]
    with pytest.raises(sk.SaikeiError, match="can be brought down to"):
        small.resolve(sk.Budget(macs=1))


# Few tasks, since elsewhere each is a process of its own, which takes seconds.
TINY: dict[str, Any] = {
    **LEAST,
    "budget": sk.Budget(macs=0.7),
    "effort": 4,
    "methods": ["prune", "average"],
}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Result:
    """A whole search in as few tasks as possible, in this process."""
    return search(dense(units=3), tmp_path_factory.mktemp("tiny") / "run", **TINY)


@pytest.mark.long
@pytest.mark.parametrize(
    "elsewhere",
    [{"workers": 1}, {"workers": 2}, {"workers": 4}, pytest.param({"ray": "local"}, marks=RAY)],
    ids=str,
)
def test_a_whole_search_gives_the_same_elsewhere(
    elsewhere: dict[str, Any], tiny: Result, tmp_path: Path
) -> None:
    try:
        found = search(dense(units=3), tmp_path / "run", **TINY, **elsewhere)
    finally:
        if "ray" in elsewhere:
            import ray

            ray.shutdown()
    assert_same(found, tiny)
    assert arrays_in(found.folder) == arrays_in(tiny.folder)


KILLED = """
import sys
from pathlib import Path

from tests.kills import kill_before
from tests.search.small import BRIEF, dense, search

folder = Path(sys.argv[1])
kill_before(int(sys.argv[2]), folder)
search(dense(), folder, **BRIEF)
"""


@pytest.mark.slow
def test_a_search_that_is_killed_again_and_again_ends_the_same(
    small: Result, tmp_path: Path
) -> None:
    folder, rng, kills = tmp_path / "run", np.random.default_rng(0), 0
    while True:
        # Each session gets a random number of steps further, in which it reads, trains and writes.
        steps = 5 + int(rng.integers(10, 60)) * (1 + kills)
        code = [sys.executable, "-c", KILLED, str(folder), str(steps)]
        done = subprocess.run(code, capture_output=True, text=True, check=False)
        if done.returncode != -signal.SIGKILL:
            break
        kills += 1
    assert done.returncode == 0, done.stderr
    assert kills >= 2
    assert_same(search(dense(), folder, **BRIEF), small)
    assert arrays_in(folder) == arrays_in(small.folder)


def arrays_in(folder: Path) -> dict[str, str]:
    """The hashes of weights, states, outputs and options; other files hold times too."""
    return {
        name: digest
        for name, digest in contents(folder).items()
        if name.endswith(".npz") or name.startswith("libraries/")
    }


# --- damaged runs ---


@pytest.fixture
def copied(small: Result, tmp_path: Path) -> Path:
    return Path(shutil.copytree(small.folder, tmp_path / "run"))


def without_run(folder: Path) -> None:
    """As when a kill came before the end, in a folder that a disk then damaged."""
    (folder / "run.json").unlink()
    overwritten(folder / "study.db")
    overwritten(folder / "candidates" / "original" / "result.json")


def without_best(folder: Path) -> None:
    (folder / "best.keras").unlink()
    (folder / "front.json").write_text("[")


def with_a_flipped_bit(folder: Path) -> None:
    flipped(folder / "best.keras")
    (folder / "run.json").write_text("{")
    (folder / "fingerprint.json").write_text((folder / "fingerprint.json").read_text())


@pytest.mark.parametrize(
    "damage",
    [without_run, pytest.param(without_best, marks=pytest.mark.long), with_a_flipped_bit],
)
def test_a_damaged_run_is_made_whole_without_training(
    small: Result,
    copied: Path,
    monkeypatch: pytest.MonkeyPatch,
    damage: Callable[[Path], None],
) -> None:
    damage(copied)
    monkeypatch.setattr("saikei.search.race.rung.train_part", None)
    result = search(dense(), copied, **BRIEF)
    assert_same(result, small)
    assert json.loads((copied / "front.json").read_text())
    assert sorted(path.name for path in copied.iterdir()) == sorted(
        path.name for path in small.folder.iterdir()
    )


def test_a_finished_run_is_read_where_nothing_can_be_written(
    small: Result, copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.mkdtemp", refuse)
    monkeypatch.setattr("filelock.FileLock.acquire", refuse)
    assert_same(search(dense(), copied, **BRIEF), small)
    (copied / "run.json").unlink()
    with pytest.raises(DiskError, match=r"run' cannot be written \(Permission denied\)"):
        search(dense(), copied, **BRIEF)


def test_a_link_in_a_folder_is_refused(small: Result, copied: Path, tmp_path: Path) -> None:
    (copied / "run.json").unlink()
    (tmp_path / "mine").write_text("mine")
    (copied / "study.db").unlink()
    (copied / "study.db").symlink_to(tmp_path / "mine")
    with pytest.raises(InputError, match=r"study\.db' is a symbolic link, which no run makes"):
        search(dense(), copied, **BRIEF)
    assert (tmp_path / "mine").read_text() == "mine"


def test_a_search_is_refused_where_another_is_at_work(small: Result, copied: Path) -> None:
    (copied / "run.json").unlink()
    with locked(copied), pytest.raises(InputError, match="Another process is running"):
        search(dense(), copied, **BRIEF)
