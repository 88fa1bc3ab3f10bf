"""Tables are the same in text, in a terminal and in a notebook, and names in them stay text."""

from __future__ import annotations

import io
from pathlib import Path

import keras
import pytest
from rich.console import Console

import saikei
from saikei.columns import Columns, InColumns
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


def small() -> keras.Model:
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="first")])


@pytest.mark.parametrize(
    "value",
    [
        saikei.profile(small(), latency=False),
        saikei.channel_groups(small()),
    ],
    ids=["profile", "groups"],
)
def test_values_are_tables_everywhere(value: InColumns) -> None:
    for text in (str(value), in_terminal(value), value._repr_html_()):
        assert "first" in text
    assert "<table>" in value._repr_html_()


def test_a_result_is_a_picture_and_a_table_in_a_notebook() -> None:
    result = Result(small(), sample_run(), Path("run"))
    assert "a1-pruned" in in_terminal(result) and "a1-pruned" in in_terminal(result.front)
    page = result._repr_html_()
    assert page.startswith("<p>Ship a1-pruned")
    assert page.count("<svg") == 1 and page.count("<tr>") == 1 + len(result.candidates)
