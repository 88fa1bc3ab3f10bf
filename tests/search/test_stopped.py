"""A search that is stopped leaves a report, and the same call ends as if nothing had happened."""

from __future__ import annotations

import importlib.util
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import saikei as sk
from saikei.search import Result
from saikei.search.events import Event
from tests.kills import contents
from tests.search.conftest import Finished
from tests.search.small import BRIEF, data, dense, search
from tests.search.test_optimize import assert_same

RAY = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is an extra")


def test_ctrl_c_ends_with_a_report_and_the_same_call_continues(
    brief: Finished, tmp_path: Path
) -> None:
    def stop(event: Event) -> None:
        if event.kind == "trained" and event.values["name"].startswith("02"):
            raise KeyboardInterrupt

    # The test data has no part in the search: without it, all else is the same.
    arguments = {**BRIEF, "test": None}
    run = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        search(brief.model, run, events=stop, **arguments)
    assert (run / "report.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    assert not (run / "run.json").exists()
    stamps = {p: p.stat().st_mtime_ns for p in run.glob("rungs/*/*/result.json")}
    assert stamps
    log = tmp_path / "events.jsonl"
    again = search(brief.model, run, events=log, **arguments)
    assert {p: p.stat().st_mtime_ns for p in stamps} == stamps
    assert again.run.test is None
    assert_same(again, brief.result)
    events = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    assert events[-1]["event"] == "finished"
    assert events[-1]["chosen"] == again.chosen.name
    assert sum(e["epochs"] for e in events if e["event"] == "trained") == sum(
        one.epochs for one in again.run.effort
    )


def test_another_budget_is_answered_from_the_same_run(brief: Finished) -> None:
    smaller = brief.result.resolve(sk.Budget(macs=0.15), data().train)
    whole = sk.profile(brief.model)
    assert sk.profile(smaller.model).macs <= 0.15 * whole.macs
    assert smaller.structure.predicted >= 0
    larger = brief.result.resolve(sk.Budget(macs=1.0))
    assert sk.profile(larger.model).macs > sk.profile(smaller.model).macs
    with pytest.raises(sk.SaikeiError, match="can be brought down to"):
        brief.result.resolve(sk.Budget(macs=1))


SMALL = {"effort": 8, "methods": ["prune", "average"], "latency": False}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Result:
    """A small search that was not stopped."""
    return search(dense(), tmp_path_factory.mktemp("small") / "run", **SMALL)


@pytest.mark.slow
@pytest.mark.parametrize(
    "elsewhere",
    [{"workers": 1}, {"workers": 2}, {"workers": 4}, pytest.param({"ray": "local"}, marks=RAY)],
    ids=str,
)
def test_a_whole_search_gives_the_same_elsewhere(
    elsewhere: dict[str, Any], small: Result, tmp_path: Path
) -> None:
    try:
        found = search(dense(), tmp_path / "run", **SMALL, **elsewhere)
    finally:
        if "ray" in elsewhere:
            import ray

            ray.shutdown()
    assert_same(found, small)
    assert arrays_in(found.folder) == arrays_in(small.folder)


KILLED = """
import sys
from pathlib import Path

from tests.kills import kill_before
from tests.search.small import dense, search
from tests.search.test_stopped import SMALL

folder = Path(sys.argv[1])
kill_before(int(sys.argv[2]), folder)
search(dense(), folder, **SMALL)
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
    assert_same(search(dense(), folder, **SMALL), small)
    assert arrays_in(folder) == arrays_in(small.folder)


def arrays_in(folder: Path) -> dict[str, str]:
    """The hashes of weights, states, outputs and options; other files hold times too."""
    return {
        name: digest
        for name, digest in contents(folder).items()
        if name.endswith(".npz") or name.startswith("libraries/")
    }
