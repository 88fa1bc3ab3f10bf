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

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from keras import layers

import saikei
from saikei.datasets import fashion_mnist
from saikei.errors import FusionError
from saikei.fusion import CascadeFit
from saikei.models import CascadeModel

WIDTHS = (4, 12, 40)


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
    for confidence in ("max_probability", "margin"):
        for combine in ("last", "average"):
            fusion = saikei.Cascade(arguments.target, confidence=confidence, combine=combine)
            try:
                fitted = fusion.fuse(members, splits.validation)
            except FusionError as refused:
                print(f"{confidence}, {combine}: {refused}\n", flush=True)
                continue
            found, cascade = fitted.head.fitted, fitted.model
            report(f"{confidence}, {combine}", found, cascade, members[-1], splits.test, arguments)


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


def report(
    label: str,
    found: CascadeFit,
    cascade: CascadeModel,
    last: keras.Model,
    test: tuple[np.ndarray, np.ndarray],
    arguments: argparse.Namespace,
) -> None:
    """Measure both on the test set, turn by turn, and print what came out."""
    x, _ = test
    for batch_size in (32, 256):
        pairs = [
            (seconds(cascade, x, batch_size), seconds(last, x, batch_size))
            for _ in range(arguments.runs + 1)
        ][1:]
        ratio = statistics.median(theirs / ours for ours, theirs in pairs)
        rate = len(x) / statistics.median(ours for ours, _ in pairs)
        print(
            f"{label:24} batch {batch_size:3}: {rate:8,.0f} rows/s, {ratio:5.2f} × the last "
            f"member's; {found.costs[-1] / found.mean_cost:5.2f} × fewer MACs",
            flush=True,
        )
    ours, theirs = saikei.evaluate(cascade, test), saikei.evaluate(last, test)
    shares = ", ".join(f"{share:.1%}" for share in found.shares)
    print(
        f"  on test: {ours}, the last member {theirs}; rows that a member sees: {shares}; "
        f"thresholds {', '.join(f'{t:.3f}' for t in found.exits.thresholds)}\n",
        flush=True,
    )


def seconds(model: keras.Model, x: np.ndarray, batch_size: int) -> float:
    """How long a prediction of all rows takes."""
    start = time.perf_counter()
    model.predict(x, batch_size=batch_size, verbose=0)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
