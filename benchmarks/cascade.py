"""A cascade's throughput against its last member's, at equal accuracy, on Fashion-MNIST.

Three convolutional networks, each about eight times as costly as the one before it, are trained on
part of the training set. The thresholds are fitted to the validation set; accuracy and throughput
are measured on the test set, where `predict` of the cascade and of its last member alternate.

    pip install '.[tensorflow]'
    python benchmarks/cascade.py
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from keras import layers
from record import record

import saikei
from saikei.datasets import fashion_mnist
from saikei.errors import FusionError
from saikei.fusion import CascadeFit
from saikei.models import CascadeModel

WIDTHS = (4, 12, 40)
BATCHES = (32, 256)


def main() -> None:
    """Run the comparison and print it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=50_000, help="to train on")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--target", type=float, default=0.99, help="share of the accuracy")
    parser.add_argument("--runs", type=int, default=5, help="alternating runs of each")
    arguments = parser.parse_args()
    splits = fashion_mnist()
    x, y = splits.train
    train = x[: arguments.samples], y[: arguments.samples]
    members = [trained(width, train, arguments.epochs) for width in WIDTHS]
    rows = []
    for confidence in ("max_probability", "margin"):
        for combine in ("last", "average"):
            fusion = saikei.Cascade(arguments.target, confidence=confidence, combine=combine)
            try:
                fitted = fusion.fuse(members, splits.validation)
            except FusionError as refused:
                print(f"{confidence}, {combine}: {refused}\n", flush=True)
                continue
            found, cascade = fitted.head.fitted, fitted.model
            row = compared(found, cascade, members[-1], splits.test, arguments.runs)
            rows.append({"confidence": confidence, "combine": combine, **row})
            print(rows[-1], flush=True)
    settings = {key: getattr(arguments, key) for key in ("samples", "epochs", "target", "runs")}
    record("cascade", rows, COLUMNS, map(line, rows), **settings)


def trained(width: int, data: tuple[np.ndarray, np.ndarray], epochs: int) -> keras.Model:
    """A small convolutional network."""
    keras.utils.set_random_seed(width)
    model = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Conv2D(width, 3, strides=2, padding="same", activation="relu"),
            layers.Conv2D(2 * width, 3, padding="same", activation="relu"),
            layers.Conv2D(2 * width, 3, strides=2, padding="same", activation="relu"),
            layers.Conv2D(4 * width, 3, padding="same", activation="relu"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(10, activation="softmax"),
        ],
        name=f"width_{width}",
    )
    saikei.fit(model, data, epochs=epochs, learning_rate=3e-3, progress=False)
    return model


COLUMNS = ("confidence", "test accuracy", "of the last", "MACs", "speed, batch 32", "batch 256")


def line(row: dict[str, Any]) -> list[str]:
    """A line of the table."""
    name = f"{row['confidence']}, {row['combine']}"
    scores = (f"{100 * row[key]:.1f} %" for key in ("test", "last"))
    speeds = (f"{row[f'speed_{size}']:.2f} ×" for size in BATCHES)
    return [name, *scores, f"{row['macs']:.2f}", *speeds]


def compared(
    found: CascadeFit,
    cascade: CascadeModel,
    last: keras.Model,
    test: tuple[np.ndarray, np.ndarray],
    runs: int,
) -> dict[str, Any]:
    """Both on the test set, turn by turn."""
    x, _ = test
    row = {
        "test": saikei.evaluate(cascade, test).value,
        "last": saikei.evaluate(last, test).value,
        "macs": found.mean_cost / found.costs[-1],
        "rows_seen": [*found.shares],
    }
    for size in BATCHES:
        pairs = [(seconds(cascade, x, size), seconds(last, x, size)) for _ in range(runs + 1)][1:]
        row[f"speed_{size}"] = statistics.median(theirs / ours for ours, theirs in pairs)
    return row


def seconds(model: keras.Model, x: np.ndarray, batch_size: int) -> float:
    """How long a prediction of all rows takes."""
    start = time.perf_counter()
    model.predict(x, batch_size=batch_size, verbose=0)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
