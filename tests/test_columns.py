"""Tables are the same in text, in a terminal and in a notebook, and names in them stay text."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from rich.console import Console

import saikei
from saikei.columns import Columns, InColumns
from saikei.judging.choose import Choice, Rival
from saikei.judging.explain import explain_predictions
from saikei.judging.explaining.explanation import Explanation
from saikei.runs.explained import Attention, Feature, GroupPart, ModelExplanation
from saikei.scoring.score import Score
from saikei.scoring.task import Task
from saikei.search.result import Result
from tests.report.sample import sample_run

HOSTILE = "<script>alert('[red]x[/red]')</script>\x1b[2J"


class Value(InColumns):
    def _shown(self) -> tuple[Columns, str]:
        return Columns([("name", "n"), (HOSTILE, "7")], right=(1,)), f"About {HOSTILE}."


def in_terminal(value: object) -> str:
    console = Console(file=io.StringIO(), width=160, color_system=None)
    with console.capture() as capture:
        console.print(value)
    return capture.get()


def test_a_hostile_name_stays_text() -> None:
    shown = in_terminal(Value())
    assert "[red]x[/red]" in shown and "\x1b" not in shown
    page = Value()._repr_html_()
    assert "<script" not in page and page.count("&lt;script") == 2
    assert '<td style="text-align: right">7</td>' in page


NAME = "<b>[red]first\x1b[2J"


def small() -> keras.Model:
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name=NAME)])


def choice() -> Choice:
    fusion = saikei.Average()
    score = Score("accuracy", 0.9, 0.8, 0.95, 10, True, 0.3)
    return Choice(fusion, small(), (Rival(fusion, score, 0.0, 0.0, 1),), f"Because of {NAME}.")


def explanation() -> Explanation:
    rng = np.random.default_rng(0)
    members = [rng.dirichlet(np.ones(3), 12) for _ in range(2)]
    task = Task("multiclass", None, "accuracy", from_logits=False, sparse=True, outputs=3)
    return explain_predictions(task, members, np.arange(12) % 3, names=[NAME, "second"])


def model_explanation() -> ModelExplanation:
    group = GroupPart(NAME, (NAME,), 8, 5, ((0.5, 0.1),), None)
    score = Score("accuracy", 0.9, 0.8, 0.95, 10, True, 0.3)
    attention = Attention((NAME,), features=(Feature(NAME, (0.5,)),))
    return ModelExplanation((NAME,), (score,), "log-loss", "taylor", 10, (group,), attention)


def result() -> Result:
    run = sample_run()
    chosen = replace(run.candidate(run.chosen), name=NAME)
    candidates = tuple(chosen if c.name == run.chosen else c for c in run.candidates)
    return Result(small(), replace(run, candidates=candidates, chosen=NAME), Path("run"))


@pytest.mark.parametrize(
    "make",
    [
        lambda: saikei.profile(small(), latency=False),
        lambda: saikei.channel_groups(small()),
        choice,
        explanation,
        model_explanation,
        result,
        lambda: result().front,
    ],
    ids=[
        "Profile",
        "ChannelGroups",
        "Choice",
        "Explanation",
        "ModelExplanation",
        "Result",
        "Front",
    ],
)
def test_values_are_shown_in_text_in_a_terminal_and_as_html(make: Callable[[], Any]) -> None:
    value = make()
    assert "[red]first" in str(value)
    shown = in_terminal(value)
    assert "[red]first" in shown and "\x1b" not in shown
    page = value._repr_html_()
    assert "&lt;b&gt;[red]first" in page and "<b>" not in page and "<table>" in page


def test_a_result_is_a_picture_and_a_table_in_a_notebook() -> None:
    result = Result(small(), sample_run(), Path("run"))
    assert "a1-pruned" in in_terminal(result) and "a1-pruned" in in_terminal(result.front)
    page = result._repr_html_()
    assert page.startswith("<p>Ship a1-pruned")
    assert page.count("<svg") == 1 and page.count("<tr>") == 1 + len(result.candidates)
