"""Language models of KerasHub: what a cut and a distillation keep, and what surgery costs.

`quality` trains a small GPT-2 on the letters of Python's own documentation, halves its MACs,
distils what is left, and compares it with fresh weights of the same structure that are trained for
all epochs of the pipeline. `surgery` profiles, groups and cuts random weights of several sizes and
gives the seconds of CPU, in forward passes too, and the peak memory as a multiple of the model.

    pip install '.[tensorflow,kerashub]'
    python benchmarks/large.py quality
    python benchmarks/large.py surgery 30M 125M
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

SHAPES = {
    "30M": {"hidden_dim": 512, "num_layers": 6, "num_heads": 8},
    "125M": {"hidden_dim": 768, "num_layers": 12, "num_heads": 12},
    "350M": {"hidden_dim": 1024, "num_layers": 24, "num_heads": 16},
    "1B": {"hidden_dim": 2048, "num_layers": 18, "num_heads": 16},
}
TOKENS, LENGTH = 50_257, 64


def main() -> None:
    """Run what was asked for and print its table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("quality", "surgery"))
    parser.add_argument("sizes", nargs="*", default=["30M"], help=f"of {', '.join(SHAPES)}")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--letters", type=int, default=200_000, help="of training")
    parser.add_argument("--epochs", type=int, default=12, help="of the original")
    parser.add_argument("--distil", type=int, default=4, help="epochs")
    parser.add_argument("--width", type=int, default=48)
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.what == "quality":
        quality(arguments)
    elif arguments.one:
        print(json.dumps(surgery(arguments.sizes[0])))
    else:
        surgery_table(arguments.sizes)


def quality(arguments: argparse.Namespace) -> None:
    """Nats per letter on held-out text, for each seed and on average, and letters per second."""
    rows = []
    for seed in range(arguments.seeds):
        rows.append(one_seed(seed, arguments))
        print(json.dumps({key: round(value, 4) for key, value in rows[-1].items()}), flush=True)
    print("| | mean | over the seeds, ± |\n| --- | ---: | ---: |")
    for key in rows[0]:
        values = [row[key] for row in rows]
        spread = statistics.stdev(values) if len(values) > 1 else float("nan")
        print(f"| {key} | {statistics.mean(values):.3f} | {spread:.3f} |")


def one_seed(seed: int, arguments: argparse.Namespace) -> dict[str, float]:
    """The original, its cut before and after distillation, and the rival from fresh weights."""
    import keras

    import saikei as sk
    from saikei.hub import family_of

    keras.utils.set_random_seed(seed)
    train, validation, test, letters = text(arguments.letters)
    original = gpt2(letters, arguments.width, 3, 4, LENGTH)
    kwargs: dict[str, Any] = {"progress": False, "seed": seed}
    sk.fit(original, train, validation, epochs=arguments.epochs, learning_rate=3e-3, **kwargs)
    calibration = keras.tree.map_structure(lambda leaf: leaf[:256], train)
    start = time.process_time()
    cut = sk.PruneChannels(sk.Budget(macs=0.5), scope="uniform")(original, calibration)
    found = {"seconds of CPU for the cut": time.process_time() - start}
    before = sk.evaluate(cut, test, metric="nats").value
    sk.distill(cut, original, train, validation, epochs=arguments.distil, **kwargs)
    family = family_of(cut)
    assert family is not None
    rival = family.with_config(cut.backbone.get_config())
    epochs = arguments.epochs + arguments.distil
    sk.fit(rival, train, validation, epochs=epochs, learning_rate=3e-3, **kwargs)
    scored = {"original": original, "cut and distilled": cut, "fresh, all epochs": rival}
    costs = [sk.profile(model, latency=False).macs for model in (cut, original)]
    found = {"MACs, share": costs[0] / costs[1], "cut alone": before, **found}
    for name, model in scored.items():
        found[name] = sk.evaluate(model, test, metric="nats").value
    found["letters per second, original"] = letters_per_second(original)
    found["letters per second, cut"] = letters_per_second(cut)
    return found


def text(count: int) -> tuple[Any, Any, Any, int]:
    """Letters of Python's documentation as training, validation and test data."""
    from pydoc_data.topics import topics

    whole = "\n".join(topics[name] for name in sorted(topics))
    known, ids = np.unique(np.array(list(whole)), return_inverse=True)
    size = LENGTH + 1
    rows = ids[: len(ids) // size * size].reshape(-1, size).astype("int32")
    rows = rows[np.random.default_rng(0).permutation(len(rows))]
    held = len(rows) // 12
    parts = rows[2 * held :][: count // LENGTH], rows[:held], rows[held : 2 * held]
    return *(pairs(part) for part in parts), len(known)


def pairs(rows: np.ndarray) -> tuple[Any, np.ndarray]:
    """Inputs of a language model, and the tokens that come next."""
    tokens = rows[:, :-1]
    return {"token_ids": tokens, "padding_mask": np.ones_like(tokens)}, rows[:, 1:]


def gpt2(tokens: int, width: int, layers: int, heads: int, length: int) -> Any:
    """GPT-2 with random weights, as a task of KerasHub."""
    import keras_hub

    backbone = keras_hub.models.GPT2Backbone(
        vocabulary_size=tokens,
        num_layers=layers,
        num_heads=heads,
        hidden_dim=width,
        intermediate_dim=4 * width,
        max_sequence_length=length,
    )
    return keras_hub.models.GPT2CausalLM(backbone=backbone, preprocessor=None)


def letters_per_second(task: Any, batch: int = 8) -> float:
    """Of a generation with KerasHub's cache, which is compiled before it is timed."""
    tokens = np.zeros((batch, LENGTH), "int32")
    mask = np.arange(LENGTH)[None, :] < np.full((batch, 1), 8)
    task.compile(sampler="greedy")
    times = []
    for _ in range(3):
        start = time.perf_counter()
        given = {"token_ids": tokens.copy(), "padding_mask": mask.astype("int32")}
        task.generate(given, stop_token_ids=None)
        times.append(time.perf_counter() - start)
    return batch * (LENGTH - 8) / min(times)


def surgery_table(sizes: list[str]) -> None:
    """A row for each size, measured in a process of its own."""
    print("| model | forward s | profile | groups | cut | with data | memory |")
    print("| --- |" + " ---: |" * 6)
    for size in sizes:
        command = [sys.executable, __file__, "surgery", size, "--one"]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        row = json.loads(done.stdout.strip().splitlines()[-1])
        forward = row["forward"]
        steps = ("profile", "groups", "cut", "with data")
        cells = [f"{row[step]:.1f} s ({row[step] / forward:.1f})" for step in steps]
        memory = f"{row['memory']:.2f} ×"
        print(f"| {size} | {forward:.1f} | {' | '.join(cells)} | {memory} |", flush=True)


def surgery(size: str) -> dict[str, float]:
    """Seconds of CPU of each step, and the peak of all but the last as a multiple of the model."""
    import saikei as sk

    shape = SHAPES[size]
    sk.PruneChannels(0.5, scope="uniform")(gpt2(64, 16, 2, 4, 8))
    gc.collect()
    empty = resident("VmRSS")
    task = gpt2(TOKENS, shape["hidden_dim"], shape["num_layers"], shape["num_heads"], 1024)
    gc.collect()
    alone = resident("VmRSS") - empty
    rows = np.random.default_rng(0).integers(0, TOKENS, (64, LENGTH + 1), dtype=np.int32)
    data = pairs(rows)
    edit = sk.PruneChannels(0.5, scope="uniform")
    Path("/proc/self/clear_refs").write_text("5")
    found = {
        "profile": seconds(lambda: sk.profile(task, latency=False)),
        "groups": seconds(lambda: sk.channel_groups(task)),
        "cut": seconds(lambda: edit(task)),
    }
    found["memory"] = (resident("VmHWM") - empty) / alone
    inputs = data[0]
    task.predict(inputs, batch_size=8, verbose=0)
    found["forward"] = seconds(lambda: task.predict(inputs, batch_size=8, verbose=0))
    found["with data"] = seconds(lambda: edit(task, data))
    return found


def seconds(work: Callable[[], Any]) -> float:
    """Seconds of CPU that work takes, of all threads."""
    gc.collect()
    start = time.process_time()
    work()
    return time.process_time() - start


def resident(field: str) -> int:
    """A field of Linux's process status, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


if __name__ == "__main__":
    main()
