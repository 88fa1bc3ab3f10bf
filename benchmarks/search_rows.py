"""What `search.py` has measured: rows of a file of JSON lines, and the table of a figure."""

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


def table(rows: list[dict[str, Any]]) -> str:
    """Mean and 95 % interval over seeds for each method."""
    lines = [
        "| method | epochs | MACs | test accuracy | seeds |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for method in dict.fromkeys(row["method"] for row in rows):
        ours = [row for row in rows if row["method"] == method]
        values = 100 * np.array([row["test"] for row in ours])
        share = 100 * np.mean([row["macs"] for row in ours])
        lines.append(
            f"| {method} | {ours[0]['epochs']} | {share:.1f} % | {interval(values)} | {len(ours)} |"
        )
    return "\n".join(lines)


def interval(values: np.ndarray) -> str:
    """A mean with Student's 95 % interval."""
    if len(values) < 2:
        return f"{values.mean():.2f} %"
    half = stats.t.ppf(0.975, len(values) - 1) * stats.sem(values)
    return f"{values.mean():.2f} ± {half:.2f} %"
