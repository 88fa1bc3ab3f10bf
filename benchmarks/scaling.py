"""How time grows with layers, members, rows and workers.

All but the search are seconds of CPU, so that other work on the machine does not count.
Exponents are the slope of the logarithm of time over that of size, by least squares over all sizes
of a list. `cut` reads a residual network, finds its groups and halves them; `read and build` makes
a copy of it. `selection` and `weights` are greedy selection in 25 rounds and certified weights on
probabilities of ten classes. `search` is a whole `optimize` on handwritten digits with one, two
and four processes, whose times are shown without an exponent.

    pip install '.[tensorflow]'
    python benchmarks/scaling.py
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from ensemble_selection import ROUNDS, TASK, made_up
from keras import layers
from record import record

import saikei as sk
from saikei.datasets import digits
from saikei.fusion import fit_weights, select_weights
from saikei.graph import copy_model

BLOCKS = (8, 16, 32, 64)
MEMBERS = (8, 16, 32, 64)
ROWS = (2_500, 10_000, 40_000)
WORKERS = (1, 2, 4)
COLUMNS = ("what", "over", "sizes", "seconds", "exponent")


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=3, help="of each, of which the median counts")
    parser.add_argument("--effort", type=int, default=24, help="epochs of the search")
    parser.add_argument("--no-search", action="store_true", help="leave the workers out")
    arguments = parser.parse_args()
    rows = []
    for what, over, sizes, prepare in CASES:
        for size in sizes:
            run = prepare(size)
            run()
            took = statistics.median(cpu_seconds(run) for _ in range(arguments.runs))
            rows.append({"what": what, "over": over, "size": size, "seconds": took})
            print(rows[-1], flush=True)
    for workers in () if arguments.no_search else WORKERS:
        took = search(workers, arguments.effort)
        rows.append({"what": "search", "over": "workers", "size": workers, "seconds": took})
        print(rows[-1], flush=True)
    settings = {} if arguments.no_search else {"effort": arguments.effort}
    record("scaling", rows, COLUMNS, lines(rows), runs=arguments.runs, **settings)


def residual(blocks: int) -> keras.Model:
    """A residual network of as many blocks on small images."""
    image = keras.Input((16, 16, 3))
    x = layers.Conv2D(16, 3, padding="same")(image)
    for _ in range(blocks):
        y = layers.Conv2D(16, 3, padding="same", use_bias=False)(x)
        y = layers.ReLU()(layers.BatchNormalization()(y))
        x = layers.Add()([x, layers.Conv2D(16, 3, padding="same")(y)])
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(image, layers.Dense(10, activation="softmax")(x))


def cut(blocks: int) -> Callable[[], object]:
    """Read, group, cut and build."""
    model = residual(blocks)
    return lambda: sk.PruneChannels(keep=0.5, scope="layer")(model)


def copy(blocks: int) -> Callable[[], object]:
    """Read and build."""
    model = residual(blocks)
    return lambda: copy_model(model)


def selection(members: int, rows: int) -> Callable[[], object]:
    """Greedy selection among made-up members."""
    predictions, y = made_up(members, rows)
    return lambda: select_weights(TASK, [*predictions], y, rounds=ROUNDS, metric="loss")


def weights(members: int, rows: int) -> Callable[[], object]:
    """Certified weights of made-up members."""
    predictions, y = made_up(members, rows)
    return lambda: fit_weights(TASK, [*predictions], y)


CASES: Sequence[tuple[str, str, Sequence[int], Callable[[int], Callable[[], object]]]] = (
    ("cut", "residual blocks", BLOCKS, cut),
    ("read and build", "residual blocks", BLOCKS, copy),
    ("selection", "members", MEMBERS, lambda members: selection(members, 5_000)),
    ("selection", "rows", ROWS, lambda rows: selection(16, rows)),
    ("weights", "members", MEMBERS, lambda members: weights(members, 5_000)),
    ("weights", "rows", ROWS, lambda rows: weights(16, rows)),
)


def search(workers: int, effort: int) -> float:
    """Seconds of a search on digits; with one worker in this process."""
    data = digits()
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(24, 3, activation="relu"),
            layers.Conv2D(32, 3, activation="relu"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(10, activation="softmax"),
        ]
    )
    sk.fit(model, data.train, data.validation, epochs=20, learning_rate=3e-3, progress=False)
    start = time.perf_counter()
    sk.optimize(
        model,
        data.train,
        data.validation,
        sk.Budget(macs=0.25),
        effort=effort,
        workers=None if workers == 1 else workers,
        latency=False,
        progress=False,
    )
    return time.perf_counter() - start


def cpu_seconds(run: Callable[[], object]) -> float:
    """How long a call keeps the processor busy."""
    start = time.process_time()
    run()
    return time.process_time() - start


def lines(rows: list[dict[str, Any]]) -> list[list[str]]:
    """Times and exponents."""
    found = []
    for what, over in dict.fromkeys((row["what"], row["over"]) for row in rows):
        ours = [row for row in rows if (row["what"], row["over"]) == (what, over)]
        sizes, times = ([row[key] for row in ours] for key in ("size", "seconds"))
        slope = np.polyfit(np.log(sizes), np.log(times), 1)[0]
        exponent = "" if what == "search" else f"{slope:.2f}"
        shown = (f"{size:,}" for size in sizes), (f"{took:.3g}" for took in times)
        found.append([what, over, *(" / ".join(each) for each in shown), exponent])
    return found


if __name__ == "__main__":
    main()
