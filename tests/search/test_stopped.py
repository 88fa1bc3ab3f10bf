"""A search that is stopped leaves a report, and the same call ends as if nothing had happened."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from saikei.search.events import Event
from tests.search.conftest import Finished
from tests.search.small import search
from tests.search.test_optimize import assert_same


def test_ctrl_c_ends_with_a_report_and_the_same_call_continues(
    finished: Finished, tmp_path: Path
) -> None:
    def stop(event: Event) -> None:
        if event.kind == "trained" and event.values["name"].startswith("02"):
            raise KeyboardInterrupt

    run = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        search(finished.model, run, events=stop)
    assert (run / "report.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    assert not (run / "run.json").exists()
    trained = sorted(path.parent.name for path in run.glob("rungs/*/*/result.json"))
    assert trained
    stamps = {p: p.stat().st_mtime_ns for p in run.glob("rungs/*/*/result.json")}
    log = tmp_path / "events.jsonl"
    again = search(finished.model, run, events=log)
    assert {p: p.stat().st_mtime_ns for p in stamps} == stamps
    assert_same(again, finished.result)
    events = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    assert events[-1]["event"] == "finished"
    assert events[-1]["chosen"] == again.chosen.name
    assert sum(e["epochs"] for e in events if e["event"] == "trained") == sum(
        one.epochs for one in again.run.effort
    )


def test_another_budget_is_answered_from_the_same_run(finished: Finished) -> None:
    import saikei as sk

    smaller = finished.result.resolve(sk.Budget(macs=0.15), finished_data())
    whole = sk.profile(finished.model)
    assert sk.profile(smaller.model).macs <= 0.15 * whole.macs
    assert smaller.structure.predicted >= 0
    larger = finished.result.resolve(sk.Budget(macs=1.0))
    assert sk.profile(larger.model).macs > sk.profile(smaller.model).macs
    with pytest.raises(sk.SaikeiError, match="can be brought down to"):
        finished.result.resolve(sk.Budget(macs=1))


def finished_data() -> object:
    from tests.search.small import data

    return data().train


@pytest.mark.slow
def test_a_whole_search_gives_the_same_with_workers(finished: Finished) -> None:
    arguments = {"effort": 8, "methods": ["prune", "average"]}
    here = search(finished.model, None, **arguments)
    assert_same(search(finished.model, None, workers=2, **arguments), here)
