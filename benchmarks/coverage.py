"""Which architectures can be pruned: every constructor of keras.applications, and KerasHub's.

For each model, at random weights and a small input: its layers and channel groups, what is
pinned and why, the seconds to find the groups and to prune, and the oracle's max|Δ| (a quarter
of the channels is silenced, then cut; the outputs are compared, relative to the largest). Then
half of the channels of each layer are cut, the model is saved, loaded by a process that never
imported Saikei, and has to predict there what it predicts here.

    pip install '.[tensorflow,kerashub]'
    python benchmarks/coverage.py                      # all; writes a Markdown table
    python benchmarks/coverage.py ResNet50 MobileNet   # some
"""

from __future__ import annotations

import argparse
import inspect
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

# The smallest inputs that these networks take.
SIDES = {"Xception": 71, "InceptionV3": 75, "InceptionResNetV2": 75}
COLUMNS = ("model", "layers", "groups", "free", "cut", "groups s", "prune s", "max|Δ|", "pinned")

REPLAY = """
import sys, numpy, keras
for module in sys.argv[3:]: __import__(module)
model = keras.models.load_model(sys.argv[1])
batch = dict(numpy.load(sys.argv[2]))
inputs = [batch[f"x{i}"] for i in range(len(model.inputs))]
outputs = keras.tree.flatten(model(keras.tree.pack_sequence_as(model.input, inputs)))
worst = max(float(abs(keras.ops.convert_to_numpy(o) - batch[f"y{i}"]).max())
            / max(float(abs(batch[f"y{i}"]).max()), 1e-30) for i, o in enumerate(outputs))
assert not any(name.startswith("saikei") for name in sys.modules)
print(worst)
"""


def main() -> None:
    """Measure each model in a process of its own, and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", help="which; all when none is named")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help="also write the table to this file")
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(arguments.models[0])))
        return
    lines = [f"| {' | '.join(COLUMNS)} |", f"|{' --- |' * len(COLUMNS)}"]
    print("\n".join(lines), flush=True)
    for name in arguments.models or [*applications(), *backbones()]:
        command = [sys.executable, __file__, "--one", name]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        lines.append(row(name, done))
        print(lines[-1], flush=True)
    if arguments.out:
        arguments.out.write_text("\n".join(lines) + "\n", encoding="utf-8")


def row(name: str, done: subprocess.CompletedProcess[str]) -> str:
    """One line of the table: the figures, or why there are none."""
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "no message"
        return f"| {name} | failed: {last[:200]} |" + " |" * (len(COLUMNS) - 2)
    found = json.loads(done.stdout.strip().splitlines()[-1])
    return f"| {' | '.join(str(found[column]) for column in COLUMNS)} |"


def applications() -> list[str]:
    """The names of all constructors of keras.applications."""
    import keras

    return [
        name
        for name, value in sorted(vars(keras.applications).items())
        if inspect.isfunction(value) and name[0].isupper()
    ]


def measure(name: str) -> dict[str, Any]:
    """All figures of one model."""
    import keras
    import numpy as np

    import saikei as sk
    from saikei.graph import read
    from saikei.testing import check_cut, random_inputs, randomise_statistics

    keras.utils.set_random_seed(0)
    model = construct(name)
    randomise_statistics(model)
    sk.profile(model, latency=False)
    start = time.perf_counter()
    groups = sk.channel_groups(model)
    found = time.perf_counter()
    half = sk.PruneChannels(keep=0.5, scope="layer")(model)
    pruned = time.perf_counter()
    check = check_cut(model)
    batch = random_inputs(half, np.random.default_rng(0))
    replayed = replay(half, batch, [] if name in applications() else ["keras_hub"])
    if check.error > 1e-5 or replayed > 1e-5 or check.spread < 1e-3:
        raise SystemExit(
            f"oracle {check.error:.1e} at a spread of {check.spread:.1e}, "
            f"loaded elsewhere {replayed:.1e}"
        )
    reasons = sorted({group.pinned for group in groups if group.pinned})
    figures = (
        name,
        len(read(model).operations),
        len(groups),
        sum(int(group.free.sum()) for group in groups),
        f"{half.count_params() / model.count_params():.0%}",
        f"{found - start:.2f}",
        f"{pruned - found:.2f}",
        f"{check.error:.1e}",
        "; ".join(reasons),
    )
    return dict(zip(COLUMNS, figures, strict=True))


def construct(name: str) -> Any:
    """A model at random weights, with a small input."""
    import keras

    constructor = getattr(keras.applications, name, None)
    if constructor is None:
        return backbones()[name]()
    side = SIDES.get(name, 64)
    # Logits: behind a softmax that is saturated every cut would look exact.
    return constructor(
        weights=None, input_shape=(side, side, 3), classes=10, classifier_activation=None
    )


def replay(model: Any, batch: Any, modules: list[str]) -> float:
    """Largest relative difference of a prediction in a process without Saikei."""
    import keras
    import numpy as np

    outputs = keras.tree.flatten(model(batch, training=False))
    arrays = {f"x{i}": x for i, x in enumerate(keras.tree.flatten(batch))}
    arrays |= {f"y{i}": keras.ops.convert_to_numpy(y) for i, y in enumerate(outputs)}
    with tempfile.TemporaryDirectory() as folder:
        model.save(Path(folder, "model.keras"))
        np.savez(Path(folder, "batch.npz"), **arrays)
        command = [sys.executable, "-c", REPLAY, "model.keras", "batch.npz", *modules]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr.strip().splitlines()[-1])
    return float(done.stdout.strip().splitlines()[-1])


def backbones() -> dict[str, Any]:
    """KerasHub's backbones, small and at random weights; none where it is not installed."""
    return {}


if __name__ == "__main__":
    main()
