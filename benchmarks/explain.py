"""What each member is worth: exact Shapley values against a plain NumPy reference.

Both share out the log-loss of the average of the same predictions, 8 members × 5,000 samples × 10
classes, over all 256 coalitions, and their values are compared. The reference averages the
probabilities of every coalition and takes the true class's logarithm, as the formula reads. Runs
alternate. Then 12 members exactly, and the whole of `explain_predictions`: Shapley values, losses
without each, members that can go, agreement, strength and calibration.

    pip install '.[tensorflow,benchmarks]'
    python benchmarks/explain.py
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from itertools import combinations
from math import factorial
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from record import record
from scipy import special

from saikei.fusion.evidence import MemberOutputs
from saikei.judging import explain_predictions
from saikei.judging.explaining.coalitions import MeanCoalitions
from saikei.judging.explaining.games import game_of
from saikei.judging.explaining.shapley import Shapley, shapley
from saikei.scoring import Task
from saikei.scoring.labelled import Labelled

ORDERS = 512
CLIP = 1e-7
TASK = Task("multiclass", None, "accuracy", from_logits=False, sparse=True, outputs=10)


def main() -> None:
    """Run the comparison and print it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=15, help="alternating runs of each")
    arguments = parser.parse_args()
    members, y = made_up(8)
    more, truth = made_up(12)
    rows = [
        compare(members, y, arguments.runs),
        {"members": "12, Shapley values", "ours_ms": median(lambda: ours(more, truth), 3)},
        {
            "members": "8, all of `explain_predictions`",
            "ours_ms": median(lambda: explain_predictions(TASK, members, y), 3),
        },
    ]
    record("shapley", rows, COLUMNS, map(line, rows), runs=arguments.runs)


COLUMNS = ("members", "Saikei", "NumPy", "ratio")


def line(row: dict[str, Any]) -> list[str]:
    """A line of the table."""
    peer = [f"{row['peer_ms']:.0f} ms", f"{row['ratio']:.1f}"] if "peer_ms" in row else ["", ""]
    return [row["members"], f"{row['ours_ms']:.1f} ms", *peer]


def made_up(members: int, samples: int = 5_000) -> tuple[list[np.ndarray], np.ndarray]:
    """Probabilities `(samples, 10)` of members of mixed skill, float32, and the classes."""
    generator = np.random.default_rng(0)
    y = generator.integers(0, 10, samples)
    hard = generator.normal(size=(samples, 10))  # what all members get wrong alike
    skill = generator.uniform(1.0, 3.0, members)
    own = generator.normal(size=(members, samples, 10))
    logits = skill[:, None, None] * np.eye(10)[y] + 0.7 * hard + 0.9 * own
    return list(special.softmax(logits, axis=-1).astype("float32")), y


def compare(members: list[np.ndarray], y: np.ndarray, runs: int) -> dict[str, Any]:
    """Time both on the same predictions, run after run, and compare their values."""
    mine, theirs = ours(members, y), reference(members, y)
    pairs = [
        (median(lambda: ours(members, y), 1), median(lambda: reference(members, y), 1))
        for _ in range(runs)
    ]
    took, other = (statistics.median(times) for times in zip(*pairs, strict=True))
    ratio = statistics.median(b / a for a, b in pairs)
    np.testing.assert_allclose(mine.values, theirs, rtol=0, atol=1e-9)
    return {
        "members": "8, Shapley values",
        "ours_ms": took,
        "peer_ms": other,
        "ratio": ratio,
    }


def ours(members: list[np.ndarray], y: np.ndarray) -> Shapley:
    """Ours, from the members' arrays on, with standard errors over rows."""
    predictions = MemberOutputs(tuple((member,) for member in members))
    prior = Labelled.of((TASK,), (y,)).prior(predictions.outputs[0])
    coalitions = MeanCoalitions(predictions, (1 / len(members),) * len(members), prior)
    return shapley(game_of((TASK,), (y,), coalitions, "loss"), ORDERS, 0)


def reference(members: list[np.ndarray], y: np.ndarray) -> np.ndarray:
    """The formula as it stands, `Σ s!(n-s-1)!/n! (v(S) - v(S+i))`."""
    count, rows = len(members), np.arange(len(y))
    p = np.stack(members).astype(np.float64)
    loss = {(): log_loss(np.bincount(y, minlength=10)[y] / len(y))}
    for size in range(1, count + 1):
        for coalition in combinations(range(count), size):
            loss[coalition] = log_loss(p[list(coalition)].mean(axis=0)[rows, y])
    values = np.zeros(count)
    for coalition, value in loss.items():
        for member in set(range(count)) - set(coalition):
            share = (
                factorial(len(coalition)) * factorial(count - len(coalition) - 1) / factorial(count)
            )
            values[member] += share * (value - loss[tuple(sorted((*coalition, member)))])
    return values


def log_loss(p: np.ndarray) -> float:
    """The mean log-loss of the probabilities given to what happened."""
    return -float(np.log(np.clip(p, CLIP, 1 - CLIP)).mean())


def median(run: Callable[[], object], runs: int) -> float:
    """CPU milliseconds of a call, so that other programs hardly count."""
    times = []
    for _ in range(runs):
        start = time.process_time()
        run()
        times.append(1e3 * (time.process_time() - start))
    return statistics.median(times)


if __name__ == "__main__":
    main()
