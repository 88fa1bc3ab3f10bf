"""Errors name options of the command that was typed, not arguments of Python."""

from __future__ import annotations

import pytest

from saikei.cli.advice import as_options

OPTIONS = ["--check", "--no-check", "--rows", "--out", "--no-latency", "--batch-size", "--dtype"]
OPTIONS += ["--allow-in-sample"]


@pytest.mark.parametrize(
    ("message", "typed"),
    [
        ("Skip this check with check=False.", "Skip this check with --no-check."),
        ("Use check=True, or more data.", "Use --check, or more data."),
        ("Use rows='first' and no dtype=, or", "Use --rows first and no --dtype, or"),
        ("give out= a new folder", "give --out a new folder"),
        ("measured with latency=False: omit", "measured with --no-latency: omit"),
        ("set batch_size=32.", "set --batch-size 32."),
        ("Budget rows=-0.5 is not", "Budget --rows -0.5 is not"),
        ("override with allow_in_sample=True.", "override with --allow-in-sample."),
    ],
)
def test_arguments_become_options(message: str, typed: str) -> None:
    assert as_options(message, OPTIONS) == typed


@pytest.mark.parametrize(
    "message",
    [
        "use Soup(check=False)",
        "use Soup('uniform', check=False)",
        "such as profile(model, latency=False)",
        "such as --set batch_size=32,64",
        "use importance='magnitude'",
        "measure with latency=True",
    ],
)
def test_what_is_typed_so_or_is_no_option_stays(message: str) -> None:
    assert as_options(message, OPTIONS) == message
