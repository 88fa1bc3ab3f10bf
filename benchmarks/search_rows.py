"""What `search.py` has measured: rows of a file of JSON lines, and the results of a figure."""

from __future__ import annotations

import json
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
from record import record
from scipy import stats


@dataclass
class Results:
    """Rows of a file of JSON lines, for one figure, data set and seed.

    Args:
        path: The file.
        key: What all rows have in common.
    """

    path: Path
    key: dict[str, Any]
    rows: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for row in read_rows(self.path):
            if {name: row.get(name) for name in self.key} == self.key:
                self.rows[row["method"]] = row

    def add(self, method: str, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The row of a method, measured unless the file has it."""
        if method not in self.rows:
            print(f"  {method} …", file=sys.stderr, flush=True)
            started = time.perf_counter()
            found = measure()
            seconds = round(time.perf_counter() - started, 1)
            row = {**self.key, "method": method, **found, "seconds": seconds, **versions()}
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            self.rows[method] = row
            print(f"    {found}", file=sys.stderr, flush=True)
        return self.rows[method]


def versions() -> dict[str, str]:
    """What the figures depend on beside the seed."""
    backend = keras.backend.backend()
    return {
        "python": platform.python_version(),
        "keras": keras.__version__,
        "backend": f"{backend} {sys.modules[backend].__version__}",
    }


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a file; none if there is no file."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return [json.loads(line) for line in lines]


# Ratios that only some figures have, with their headings.
SPEEDS = {"speed_32": "speed, batch 32", "speed_512": "batch 512"}
Seeds = dict[int, dict[str, Any]]


def write(name: str, rows: list[dict[str, Any]], **settings: Any) -> None:
    """Write the results of a figure.

    Args:
        name: Name of the file of results.
        rows: One row for each method and seed.
        settings: What the figures depend on.
    """
    methods: dict[str, Seeds] = {}
    for row in rows:
        methods.setdefault(row["method"], {})[row["seed"]] = row
    ours = next(name for name in methods if "optimize" in name)
    speeds = {key: title for key, title in SPEEDS.items() if any(key in row for row in rows)}
    lines = []
    for method, seeds in methods.items():
        ahead = ("-", "-") if method == ours else compared(methods[ours], seeds)
        ratios = (factor(seeds, key) for key in speeds)
        lines.append([method, *scores(seeds), *ahead, *ratios])
    columns = ("method", "epochs", "MACs", "validation", "test", "of each seed")
    columns = (*columns, f"{ours} ahead by, points", "fewer errors", *speeds.values())
    backends = " and ".join(dict.fromkeys(row["backend"] for row in rows))
    record(name, rows, columns, lines, **settings, backend=backends)


def scores(seeds: Seeds) -> list[str]:
    """Epochs, MACs and accuracies of a method."""
    share, held_out = (
        100 * np.mean([row[key] for row in seeds.values()]) for key in ("macs", "validation")
    )
    test = 100 * np.array([row["test"] for row in seeds.values()])
    each = ", ".join(f"{value:.2f}" for value in test)
    epochs = str(next(iter(seeds.values()))["epochs"] or "")
    return [epochs, f"{share:.1f} %", f"{held_out:.2f} %", interval(test), each]


def compared(ours: Seeds, theirs: Seeds) -> tuple[str, str]:
    """By how many points of test accuracy ours is ahead, and the share of errors it has less."""
    seeds = [seed for seed in ours if seed in theirs]
    if not seeds:
        return "", ""
    mine, other = (np.array([rows[seed]["test"] for seed in seeds]) for rows in (ours, theirs))
    fewer = 1 - (1 - mine).sum() / (1 - other).sum()
    return interval(100 * (mine - other)).removesuffix(" %"), f"{100 * fewer:.1f} %"


def factor(seeds: Seeds, key: str) -> str:
    """The mean of a ratio over seeds; nothing where it was not measured."""
    found = [row[key] for row in seeds.values() if key in row]
    return f"{np.mean(found):.2f} ×" if found else ""


def interval(values: np.ndarray) -> str:
    """A mean with Student's 95 % interval."""
    if len(values) < 2:
        return f"{values.mean():.2f} %"
    half = stats.t.ppf(0.975, len(values) - 1) * stats.sem(values)
    return f"{values.mean():.2f} ± {half:.2f} %"
