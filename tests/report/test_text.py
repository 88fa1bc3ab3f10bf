"""The report for a terminal, letter by letter."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from saikei.report import render_front, render_text, text_report
from saikei.report.text import plain
from tests.report.sample import sample_run

GOLDEN = Path(__file__).parent / "golden"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("report.txt", render_text(sample_run())),
        ("front.txt", render_front(sample_run())),
        ("narrow.txt", render_text(sample_run(), width=80)),
    ],
)
def test_the_text_is_the_one_that_was_looked_at(name: str, text: str) -> None:
    # After a change that is meant: write the text there, and look at it again.
    assert text + "\n" == (GOLDEN / name).read_text(encoding="utf-8")


def test_without_a_test_set_the_original_is_the_yardstick() -> None:
    text = render_text(replace(sample_run(), test=None))
    assert "on test" not in text
    assert "the original has 98.89 %" in text


def test_brackets_in_names_are_no_markup() -> None:
    text = render_text(sample_run("[bold]x[/bold] [link=http://a.example]y[/link]"), width=400)
    assert "no clear difference [bold]x[/bold]" in text
    assert "[link=http://a.example]y[/link]" in text


def test_the_text_fits_the_terminal() -> None:
    for line in plain(text_report(sample_run()), width=100).splitlines():
        assert Console(width=200).measure(line).maximum <= 100


def test_the_first_lines_name_costs_that_have_risen() -> None:
    run = sample_run()
    risen = tuple(
        replace(c, cost=replace(c.cost, memory=3 * c.cost.memory)) if c.name == run.chosen else c
        for c in run.candidates
    )
    text = " ".join(render_text(replace(run, candidates=risen), width=400).split())
    assert "takes more than the original" not in " ".join(render_text(run, width=400).split())
    assert "It takes more than the original in: activation bytes per sample (" in text
