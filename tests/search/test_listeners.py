"""What a run shows while it goes on, and what it logs elsewhere."""

from __future__ import annotations

import io
import json
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from saikei.errors import InputError
from saikei.runs.candidate import Cost
from saikei.scoring.score import Score
from saikei.search import mlflow, tensorboard
from saikei.search.board import Board
from saikei.search.events import Events
from saikei.search.listeners import listeners

COST = Cost(params=1_200, macs=50_000, bytes=4_800, memory=640, latency=None, batch_size=32)


def happen(events: Events) -> None:
    """Two candidates, of which the second is better and dearer, after 4 of 10 epochs."""
    events.stage("training")
    for name, value, macs in (
        ("01-knapsack", 0.9, 50_000),
        ("02-a-rather-long-name", 0.95, 60_000),
    ):
        events.emit("trained", name=name, epochs=2, total=2, took=20.0)
        cost = replace(COST, macs=macs)
        events.candidate(name, Score("accuracy", value, 0.8, 1.0, 9, True, 0.1), cost, True, 2)


@pytest.mark.parametrize("width", [100, 40])
def test_the_board_fits_the_terminal_and_shows_the_time_left(width: int) -> None:
    screen = io.StringIO()
    console = Console(file=screen, width=width, force_terminal=True, color_system=None)
    with Board(10, True, workers=2, console=console) as board:
        happen(Events((board,)))
    shown = screen.getvalue()
    # 40 s for 4 epochs; 6 are left, two at once.
    assert board.left == "about 30 s left" and board.left in shown
    assert "95.00 %" in shown and "02-a-rather" in shown and "60,000" in shown
    assert ("params" in shown) == ("on the front" in shown) == (width == 100)


def test_candidates_are_logged_with_their_epochs(monkeypatch: Any, tmp_path: Path) -> None:
    logged: list[tuple[Any, ...]] = []
    package = SimpleNamespace(
        active_run=lambda: None,
        start_run=lambda **run: logged.append(("run", run)),
        log_metric=lambda name, value, step: logged.append((name, value, step)),
    )
    monkeypatch.setitem(sys.modules, "mlflow", package)
    happen(Events((mlflow(run_name="mine"),)))
    assert logged[0] == ("run", {"run_name": "mine"})
    assert ("01-knapsack/validation/accuracy", 0.9, 2) in logged
    assert ("02-a-rather-long-name/cost/macs", 60_000, 2) in logged
    assert not any("latency" in one[0] for one in logged)
    pytest.importorskip("tensorboard")
    happen(Events((tensorboard(tmp_path),)))
    assert len(list(tmp_path.glob("*/events.out*"))) == 2


def test_each_line_of_json_has_the_time_since_the_call_began(tmp_path: Path) -> None:
    happen(Events(listeners(tmp_path / "events.jsonl")))
    lines = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    assert [one["event"] for one in lines] == ["stage", *["trained", "candidate"] * 2]
    # A training took 20 s, maybe in an earlier call; this one is much shorter.
    assert all(one["seconds"] < 10 for one in lines) and lines[1]["took"] == 20


def test_what_cannot_listen_is_refused(monkeypatch: Any, tmp_path: Path) -> None:
    for name in ("mlflow", "tensorboard", "tensorboard.summary"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(InputError, match="'mlflow' is not installed: pip install mlflow"):
        mlflow()
    with pytest.raises(InputError, match="pip install tensorboard"):
        tensorboard(tmp_path)
    with pytest.raises(InputError, match="events got a int"):
        listeners([3])
    with pytest.raises(InputError, match="make the folder"):
        listeners(tmp_path / "none" / "events.jsonl")
