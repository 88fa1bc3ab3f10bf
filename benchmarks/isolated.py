"""Benchmarks whose cases each run in a process of their own, one at a time, and give a table.

A crash, a hang or a fault of a case is a row of the table instead of the end of the benchmark.
Used by `coverage.py` and `tried.py`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

Row = dict[str, Any]


def command_line(what: str, description: str) -> argparse.ArgumentParser:
    """The options that such a benchmark has: which cases, the limit, and where rows are kept.

    Args:
        what: the plural of what a case is, such as `"models"`; the name of the first argument.
        description: the first line of `--help`.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(what, nargs="*", help="which; all when none is named")
    parser.add_argument("--limit", type=float, default=1800, help="seconds for each")
    parser.add_argument("--rows", type=Path, help="JSON lines: read, and appended as it goes")
    parser.add_argument("--markdown", type=Path, help="where the page of the documentation goes")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    return parser


def parsed(parser: argparse.ArgumentParser, what: str) -> argparse.Namespace:
    """The arguments; the page of the documentation is written for all cases alone."""
    arguments = parser.parse_args()
    if arguments.markdown and getattr(arguments, what):
        parser.error(f"--markdown is for a run of all {what}")
    return arguments


def measure_all(
    script: str,
    names: Sequence[str],
    arguments: argparse.Namespace,
    columns: Mapping[str, str],
    line: Callable[[Row], str],
    options: Sequence[str] = (),
) -> list[Row]:
    """Measure each case in a process of its own, and print the table as it grows.

    Args:
        script: the file of the benchmark, which prints one row as JSON when called with `--one`.
        names: of the cases.
        arguments: from `parsed`.
        columns: headings by their keys in a row. The first key holds the case's name.
        line: from a row to a line of the table.
        options: more options for each process.

    Returns:
        A row for each case. One that failed has a text under `"fault"`.
    """
    name_column = next(iter(columns))
    known: dict[str, Row] = {}
    if arguments.rows and arguments.rows.exists():
        lines = arguments.rows.read_text(encoding="utf-8").splitlines()
        known = {row[name_column]: row for row in map(json.loads, lines)}
    print("\n".join(heading(columns)), flush=True)
    for name in names:
        if name not in known:
            command = [sys.executable, script, "--one", name, *options]
            known[name] = {name_column: name} | _run(command, arguments.limit)
            if arguments.rows:
                with arguments.rows.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(known[name]) + "\n")
        print(line(known[name]), flush=True)
    return [known[name] for name in names]


def _run(command: Sequence[str], limit: float) -> Row:
    """The figures that a process prints, or how it failed; its time and the machine's load."""
    start = time.perf_counter()
    row: Row = {}
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=limit)
    except subprocess.TimeoutExpired:
        row["fault"] = f"not done after {limit:.0f} s"
    else:
        if done.returncode:
            reason = done.stderr.strip().splitlines() or ["no message"]
            row["fault"] = f"exit code {done.returncode}: {reason[-1][:300]}"
        else:
            row = last_json(done.stdout)
    return row | {"seconds": round(time.perf_counter() - start, 1), "load": os.getloadavg()[0]}


def last_json(text: str) -> Row:
    """The last JSON object of a text that begins a line: libraries print lines of their own."""
    start = f"\n{text}".rfind("\n{")
    if start < 0:
        raise ValueError(f"No JSON object is in the output: {text[-300:]!r}.")
    return dict(json.loads(text[start:]))


def heading(columns: Mapping[str, str]) -> list[str]:
    """The first two lines of a table."""
    return [f"| {' | '.join(columns.values())} |", f"|{' --- |' * len(columns)}"]


def failed(row: Row, columns: Mapping[str, str]) -> str:
    """The line of a case without figures."""
    name = row[next(iter(columns))]
    return f"| {name} | **failed**: {cell(row['fault'])} |" + " |" * (len(columns) - 2)


def cell(text: str) -> str:
    """A text as a cell of a table, of a length that can be read."""
    short = text if len(text) <= 200 else f"{text[:199]}…"
    return short.replace("|", "\\|")


def faults(wrong: Mapping[str, bool]) -> Row:
    """What is wrong with a row, under the key `fault`; nothing where all is well."""
    found = "; ".join(text for text, is_so in wrong.items() if is_so)
    return {"fault": found} if found else {}
