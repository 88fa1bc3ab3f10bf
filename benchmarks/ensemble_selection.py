"""Greedy ensemble selection and certified weights: Saikei against AutoGluon.

Both select with replacement among the same predictions, 21 members × 5,000 samples × 10 classes in
25 rounds, by log-loss and by accuracy, and by log-loss among 50 × 50,000 × 10. AutoGluon breaks
ties of accuracy by log-loss here, as Saikei does (by default it draws one). Runs alternate. Then
the convex weights on the same data: their time, their loss beside the greedy one, and their
optimality gap.

    pip install '.[tensorflow,benchmarks]'
    python benchmarks/ensemble_selection.py
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from record import record
from scipy import special

from saikei.fusion import fit_weights, select_weights
from saikei.scoring import Task

ROUNDS = 25
TASK = Task("multiclass", None, "accuracy", from_logits=False, sparse=True, outputs=10)


def main() -> None:
    """Run the comparison and print it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=7, help="alternating runs of each")
    parser.add_argument("--no-large", action="store_true", help="leave 50 × 50,000 × 10 out")
    arguments = parser.parse_args()
    small = made_up(21, 5_000)
    rows = [
        compare("log-loss, 21 × 5,000 × 10", small, "loss", arguments.runs),
        compare("accuracy, 21 × 5,000 × 10", small, "accuracy", arguments.runs),
    ]
    if not arguments.no_large:
        rows.append(compare("log-loss, 50 × 50,000 × 10", made_up(50, 50_000), "loss", 1))
    rows.append(certified(small, arguments.runs))
    record("selection", rows, COLUMNS, map(line, rows), runs=arguments.runs)


def made_up(members: int, samples: int) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities `(members, samples, 10)` of members of mixed skill, and the classes."""
    generator = np.random.default_rng(0)
    y = generator.integers(0, 10, samples)
    hard = generator.normal(size=(samples, 10))  # what all members get wrong alike
    skill = generator.uniform(1.0, 3.0, members)
    own = generator.normal(size=(members, samples, 10))
    logits = skill[:, None, None] * np.eye(10)[y] + 0.7 * hard + 0.9 * own
    return special.softmax(logits, axis=-1), y


COLUMNS = ("task", "Saikei", "AutoGluon", "ratio", "result")


def line(row: dict[str, Any]) -> list[str]:
    """A line of the table."""
    if "gap" in row:
        result = f"log-loss {row['loss']:.6f} (greedy {row['greedy']:.6f}), gap {row['gap']:.0e}"
        return [row["task"], f"{row['ours_ms']:.1f} ms", "", "", result]
    times = (f"{row[key]:,.1f} ms" for key in ("ours_ms", "peer_ms"))
    result = "the same picks" if row["same"] else "**other picks**"
    return [row["task"], *times, f"{row['ratio']:.0f}", result]


def compare(
    label: str, data: tuple[np.ndarray, np.ndarray], metric: Any, runs: int
) -> dict[str, Any]:
    """Time both on the same predictions, run after run, and compare their picks."""
    predictions, y = data
    members = list(predictions)

    def ours() -> list[int]:
        return list(select_weights(TASK, members, y, rounds=ROUNDS, metric=metric).picks)

    theirs = autogluon(members, y, metric)
    picks, other = ours(), theirs()
    pairs = [(seconds(ours), seconds(theirs)) for _ in range(runs)]
    ratio = statistics.median(b / a for a, b in pairs)
    mine, peer = (1e3 * statistics.median(times) for times in zip(*pairs, strict=True))
    same = picks == [int(pick) for pick in other]
    return {"task": label, "ours_ms": mine, "peer_ms": peer, "ratio": ratio, "same": same}


def autogluon(members: list[np.ndarray], y: np.ndarray, metric: str) -> Callable[[], list[int]]:
    """AutoGluon's own selection."""
    from autogluon.core.metrics import accuracy, log_loss
    from autogluon.core.models.greedy_ensemble.ensemble_selection import EnsembleSelection

    def run() -> list[int]:
        selection = EnsembleSelection(
            ensemble_size=ROUNDS,
            problem_type="multiclass",
            metric=log_loss if metric == "loss" else accuracy,
            tie_breaker="second_metric",
        )
        selection.fit(members, y)
        return list(selection.indices_)

    return run


def certified(data: tuple[np.ndarray, np.ndarray], runs: int) -> dict[str, Any]:
    """The convex weights: how long they take, and how far from the optimum they can be."""
    predictions, y = data
    members = list(predictions)
    fitted = fit_weights(TASK, members, y)
    greedy = select_weights(TASK, members, y, rounds=ROUNDS)
    took = statistics.median(seconds(lambda: fit_weights(TASK, members, y)) for _ in range(runs))
    return {
        "task": "certified weights, 21 × 5,000 × 10",
        "ours_ms": 1e3 * took,
        "loss": fitted.loss,
        "greedy": greedy.losses[-1],
        "gap": fitted.gap,
    }


def seconds(run: Callable[[], object]) -> float:
    """CPU seconds of a call, so that other programs hardly count."""
    start = time.process_time()
    run()
    return time.process_time() - start


if __name__ == "__main__":
    main()
