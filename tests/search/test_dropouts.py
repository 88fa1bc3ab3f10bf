"""A whole search goes on without candidates that run out of memory or do not fit on the disk."""

from __future__ import annotations

import errno
import html
from pathlib import Path
from typing import Any

import pytest

from saikei.runs.numbers import metric_value
from saikei.search import Result, rungs
from saikei.search.race import rung
from tests.search.small import dense, search

pytestmark = pytest.mark.long
REPEATS = 2


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Result:
    """A search whose second candidate has too little memory, and the third no room."""
    train, write = rung.train_part, rungs._write_result

    def without_memory(model: Any, *arguments: Any, **more: Any) -> Any:
        if model.name.startswith("02"):
            raise MemoryError
        return train(model, *arguments, **more)

    def without_room(result: Any, draft: Path) -> None:
        if draft.parents[1].name.startswith("03"):
            raise OSError(errno.ENOSPC, "No space left on device")
        write(result, draft)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rung, "train_part", without_memory)
        patch.setattr(rungs, "_write_result", without_room)
        return search(
            dense(),
            tmp_path_factory.mktemp("dropouts") / "run",
            effort=14,
            methods=["prune"],
            rivals=False,
            repeats=REPEATS,
            latency=False,
        )


def page(result: Result) -> str:
    return html.unescape((result.folder / "report.html").read_text(encoding="utf-8"))


def test_the_others_go_on_and_the_report_has_the_reasons(result: Result) -> None:
    left_out = {d.topic[:2]: d.reason for d in result.run.decisions if d.choice == "left out"}
    assert left_out.keys() == {"02", "03"}
    assert left_out["02"].startswith("MemoryError")
    assert "cannot be written (No space left on device)" in left_out["03"]
    names = {c.name[:2] for c in result.candidates}
    assert "01" in names and not names & {"02", "03"}
    assert all(reason in page(result) for reason in left_out.values())


def test_the_winner_is_trained_again_with_other_seeds_and_reported(result: Result) -> None:
    again = [c for c in result.candidates if c.family == "repeat"]
    assert len(again) == REPEATS - 1
    (seeds,) = (d for d in result.run.decisions if d.topic.startswith("seeds of"))
    winner = result.run.candidate(seeds.topic.removeprefix("seeds of "))
    mean = sum(c.validation.value for c in (winner, *again)) / REPEATS
    assert seeds.choice == f"{metric_value('accuracy', mean)} in the mean of {REPEATS}"
    assert "95 % interval" in seeds.reason
    assert seeds.reason in page(result)
