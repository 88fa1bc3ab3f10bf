"""A fused graph of five members against five `predict` calls and an average.

Dense and convolutional members, at batches of 1, 32 and 512 rows. Both get the same batch and give
the same outputs; runs alternate, and CPU time counts. Beside `predict` of the fused model, its
`predict_on_batch` is measured, which leaves out what Keras does around a batch, also for the loop.

For dense members two other graphs of the same function are measured against ours, in which members
stand side by side: the members' matrices stacked, so that each layer of all is one product, and a
vectorised map (`keras.ops.vectorized_map`) of one member over stacked weights.

    pip install '.[tensorflow]'
    python benchmarks/fused_throughput.py
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from keras import layers, ops
from record import record

from saikei import Average

MEMBERS = 5
BATCHES = (1, 32, 512)
CALLS = [(how, batch) for how in ("predict", "predict_on_batch") for batch in BATCHES]


def main() -> None:
    """Run the comparison and print it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=25, help="alternating runs of each")
    arguments = parser.parse_args()
    rows = [*measured(arguments.runs)]
    for row in rows:
        print(row, flush=True)
    record("fused", rows, COLUMNS, lines(rows), runs=arguments.runs)


def measured(runs: int) -> Iterator[dict[str, Any]]:
    """A row for each kind of members, each graph, batch and way to call it."""
    for label, make in (("dense", dense), ("convolutional", convolutional)):
        members = [make(seed) for seed in range(MEMBERS)]
        fused = Average()(members)
        for how, batch in CALLS:
            x = samples(members[0], batch)
            key = {"members": label, "against": "five calls", "call": how, "batch": batch}
            yield key | compare(members, fused, x, how, runs)
    members = [dense(seed) for seed in range(MEMBERS)]
    fused = Average()(members)
    for name, mapped in (("stacked matrices", False), ("vectorised map", True)):
        other = stacked(members, mapped)
        for how, batch in CALLS:
            x = samples(members[0], batch)
            key = {"members": "dense", "against": name, "call": how, "batch": batch}
            yield key | against(fused, other, x, how, runs)


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


class Stacked(layers.Layer):
    """Dense layers of several members, `(batch, …)` to `(batch, outputs)`, averaged at the end."""

    def __init__(self, members: list[keras.Model], mapped: bool) -> None:
        super().__init__()
        self.mapped = mapped
        self.stacks = []
        for layer in zip(*(member.layers for member in members), strict=True):
            kernel = np.stack([one.kernel for one in layer])
            bias = np.stack([one.bias for one in layer])[:, None]
            pair = [self.add_weight(shape=part.shape) for part in (kernel, bias)]
            for weight, part in zip(pair, (kernel, bias), strict=True):
                weight.assign(part)
            self.stacks.append((*pair, layer[0].activation))

    def call(self, x: keras.KerasTensor) -> keras.KerasTensor:
        """All members at once, or one mapped over the weights of all."""
        flat = [part for kernel, bias, _ in self.stacks for part in (kernel, bias)]
        if self.mapped:
            outputs = ops.vectorized_map(lambda own: self.run(x, own), flat)
        else:
            outputs = self.run(ops.broadcast_to(x, (MEMBERS, *ops.shape(x))), flat)
        return ops.mean(outputs, axis=0)

    def run(self, x: keras.KerasTensor, flat: list[keras.KerasTensor]) -> keras.KerasTensor:
        """The layers one after another."""
        for place, (_, _, activation) in enumerate(self.stacks):
            x = activation(ops.matmul(x, flat[2 * place]) + flat[2 * place + 1])
        return x


def stacked(members: list[keras.Model], mapped: bool) -> keras.Model:
    """The average of dense members by products over all members."""
    inputs = keras.Input(members[0].input_shape[1:])
    return keras.Model(inputs, Stacked(members, mapped)(inputs))


def samples(member: keras.Model, batch: int) -> np.ndarray:
    """Random input for a member."""
    shape = (batch, *member.input_shape[1:])
    return np.random.default_rng(0).normal(size=shape).astype("float32")


def compare(
    members: list[keras.Model], fused: keras.Model, x: np.ndarray, how: str, runs: int
) -> dict[str, float]:
    """Time both turn by turn."""

    def loop() -> np.ndarray:
        return np.mean([predict(member, x, how) for member in members], axis=0)

    return race(lambda: predict(fused, x, how), loop, runs)


def against(
    fused: keras.Model, other: keras.Model, x: np.ndarray, how: str, runs: int
) -> dict[str, float]:
    """The same for another graph of the same function."""
    return race(lambda: predict(fused, x, how), lambda: predict(other, x, how), runs)


def predict(model: keras.Model, x: np.ndarray, how: str) -> np.ndarray:
    """What a model predicts for one batch."""
    if how == "predict_on_batch":
        return np.asarray(model.predict_on_batch(x))
    return np.asarray(model.predict(x, batch_size=len(x), verbose=0))


def race(one: Callable[[], object], other: Callable[[], object], runs: int) -> dict[str, float]:
    """Both turn by turn, after a check that they predict the same."""
    np.testing.assert_allclose(one(), other(), atol=1e-5)
    pairs = [(seconds(one), seconds(other)) for _ in range(runs)]
    ratio = statistics.median(theirs / ours for ours, theirs in pairs)
    ours, theirs = (1e3 * statistics.median(times) for times in zip(*pairs, strict=True))
    return {"fused_ms": ours, "other_ms": theirs, "ratio": ratio}


COLUMNS = ("members, against what, call", *(f"batch {batch}" for batch in BATCHES))


def lines(rows: list[dict[str, Any]]) -> list[list[str]]:
    """Throughput as a multiple of the other's."""
    found: dict[str, list[str]] = {}
    for row in rows:
        name = f"{row['members']}, {row['against']}, `{row['call']}`"
        found.setdefault(name, [name]).append(f"{row['ratio']:.2f}")
    return [*found.values()]


def seconds(run: Callable[[], object]) -> float:
    """CPU seconds of a call, so that other programs hardly count."""
    start = time.process_time()
    run()
    return time.process_time() - start


if __name__ == "__main__":
    main()
