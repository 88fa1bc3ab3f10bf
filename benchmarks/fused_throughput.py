"""A fused graph of five members against five `predict` calls and an average.

Dense and convolutional members, at batches of 1, 32 and 512 rows. Both get the same batch and give
the same outputs; runs alternate. Beside `predict` of the fused model, its `predict_on_batch` is
measured, which leaves out what Keras does around a batch, for the loop likewise.

    pip install '.[tensorflow]'
    python benchmarks/fused_throughput.py
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from keras import layers

from saikei import Average

MEMBERS = 5


def main() -> None:
    """Run the comparison and print it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=25, help="alternating runs of each")
    arguments = parser.parse_args()
    for label, make in (("dense", dense), ("convolutional", convolutional)):
        members = [make(seed) for seed in range(MEMBERS)]
        fused = Average()(members)
        for batch in (1, 32, 512):
            x = rows(members[0], batch)
            for how in ("predict", "predict_on_batch"):
                compare(f"{label}, {how}, batch {batch}", members, fused, x, how, arguments.runs)


def dense(seed: int) -> keras.Model:
    """An MLP for 784 numbers."""
    keras.utils.set_random_seed(seed)
    return keras.Sequential(
        [
            keras.Input((784,)),
            layers.Dense(128, activation="relu"),
            layers.Dense(64, activation="relu"),
            layers.Dense(10, activation="softmax"),
        ]
    )


def convolutional(seed: int) -> keras.Model:
    """A small network for pictures of 28 × 28."""
    keras.utils.set_random_seed(seed)
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Conv2D(8, 3, strides=2, activation="relu"),
            layers.Conv2D(16, 3, strides=2, activation="relu"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(10, activation="softmax"),
        ]
    )


def rows(member: keras.Model, batch: int) -> np.ndarray:
    """Random input for a member."""
    shape = (batch, *member.input_shape[1:])
    return np.random.default_rng(0).normal(size=shape).astype("float32")


def compare(
    label: str, members: list[keras.Model], fused: keras.Model, x: np.ndarray, how: str, runs: int
) -> None:
    """Time both turn by turn, and print the ratio."""

    def say(model: keras.Model) -> np.ndarray:
        if how == "predict_on_batch":
            return np.asarray(model.predict_on_batch(x))
        return np.asarray(model.predict(x, batch_size=len(x), verbose=0))

    def one() -> np.ndarray:
        return say(fused)

    def loop() -> np.ndarray:
        return np.mean([say(member) for member in members], axis=0)

    np.testing.assert_allclose(one(), loop(), atol=1e-5)
    pairs = [(seconds(one), seconds(loop)) for _ in range(runs)]
    ratio = statistics.median(theirs / ours for ours, theirs in pairs)
    ours, theirs = (1e3 * statistics.median(times) for times in zip(*pairs, strict=True))
    print(
        f"{label:42} fused {ours:8.2f} ms   loop {theirs:8.2f} ms   ratio {ratio:5.2f}", flush=True
    )


def seconds(run: Callable[[], object]) -> float:
    """How long a call takes."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
