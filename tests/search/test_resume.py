"""A search that is killed goes on where it was, and ends as if nothing had happened."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.search.conftest import Finished
from tests.search.small import BRIEF, search
from tests.search.test_optimize import assert_same

SITTING = """
import sys
from pathlib import Path
import keras
from tests.search.small import BRIEF, search
search(keras.saving.load_model(sys.argv[1]), Path(sys.argv[2]), **BRIEF)
"""
PATIENCE = 300


def killed_after(candidate: str, model: Path, run: Path) -> None:
    """Search in another process, and kill it once the candidate is brief."""
    root = Path(__file__).parents[2]
    session = subprocess.Popen(
        [sys.executable, "-c", SITTING, str(model), str(run)],
        cwd=root,
        env=_environment(root),
    )
    try:
        end = time.monotonic() + PATIENCE
        while not (run / "candidates" / candidate / "result.json").is_file():
            assert session.poll() is None, "the search ended before it could be killed"
            assert time.monotonic() < end, "the search took too long"
            time.sleep(0.01)
    finally:
        session.kill()
        session.wait()


def _environment(root: Path) -> dict[str, str]:
    import os

    paths = [str(root / "src"), str(root)]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


def files(folder: Path) -> dict[str, tuple[int, str]]:
    return {
        str(path.relative_to(folder)): (
            path.stat().st_mtime_ns,
            hashlib.sha256(path.read_bytes()).hexdigest(),
        )
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.relative_to(folder).parts[0].startswith(".")
    }


@pytest.mark.slow
def test_a_killed_search_trains_no_finished_candidate_again_and_ends_the_same(
    brief: Finished, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    killed_after("01-knapsack", brief.file, run)
    assert not (run / "run.json").exists()
    kept = files(run / "candidates")
    assert {name.split("/")[0] for name in kept} >= {"original", "01-knapsack"}
    resumed = search(brief.model, run, **BRIEF)
    after = files(run / "candidates")
    assert {name: after[name] for name in kept} == kept
    assert not list((run / "candidates").glob(".*"))
    assert_same(resumed, brief.result)
    assert resumed.run.test == brief.result.run.test
    assert (run / "best.keras").is_file()
