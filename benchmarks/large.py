"""Language models of KerasHub: what a cut and a distillation keep, and what surgery costs.

`quality` trains a small GPT-2 on the letters of Python's own documentation, halves its MACs,
distils what is left, and compares it with fresh weights of the same structure that are trained for
all epochs of the pipeline. `surgery` profiles, groups and cuts random weights of several sizes and
gives the seconds of CPU, in forward passes too, and the peak memory as a multiple of the model.
`growth` has them over the number of blocks, and `generation` gives tokens per second.

    pip install '.[tensorflow,kerashub]'
    python benchmarks/large.py quality --seeds 0 1 2 3 4
    python benchmarks/large.py surgery 30M 125M 1B-
    python benchmarks/large.py growth
    python benchmarks/large.py generation 30M
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
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from record import record, recorded
from scipy import stats
from search_rows import Results, read_rows

from saikei.hub import family_of

SHAPES = {
    "30M": {"hidden_dim": 512, "num_layers": 6, "num_heads": 8},
    "125M": {"hidden_dim": 768, "num_layers": 12, "num_heads": 12},
    "350M": {"hidden_dim": 1024, "num_layers": 24, "num_heads": 16},
    "1B": {"hidden_dim": 2048, "num_layers": 18, "num_heads": 16},
}
TOKENS, LENGTH = 50_257, 64
SEQUENCE = dict.fromkeys(("token_ids", "padding_mask"), (LENGTH,))
# Of `quality`: what is trained, on how many letters, for how many epochs.
SETTINGS = {
    "width": 96,
    "blocks": 3,
    "heads": 4,
    "letters": 128_000,
    "batch": 8,
    "first": 24,
    "distil": 8,
}
# The rate of all trainings, and the weight of the letters in distillation: of 0.1, 0.5 and 0.9 the
# best on validation for seed 0, and 2e-3 better than the rate that `distill` would take, 1e-3.
RATE, LABELS = 2e-3, 0.9
OURS = "cut and distilled"


def main() -> None:
    """Run what was asked for and print its table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("quality", "surgery", "growth", "generation"))
    sizes = f"of {', '.join(SHAPES)}; with a '-' behind it, what runs the model is left out"
    parser.add_argument("sizes", nargs="*", default=["30M"], help=sizes)
    parser.add_argument("--seeds", type=int, nargs="*", default=[0], help="of quality")
    parser.add_argument("--rows", type=Path, default=Path("build/large.jsonl"), help="of quality")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.what == "quality":
        quality(arguments.seeds, arguments.rows)
    elif arguments.what == "growth":
        growth()
    elif arguments.what == "generation":
        generation(arguments.sizes[0])
    elif arguments.one:
        print(json.dumps(surgery(arguments.sizes[0])))
    else:
        surgery_table(arguments.sizes)


def quality(seeds: list[int], path: Path) -> None:
    """Nats per letter on held-out text: a row for each model, and intervals over the seeds.

    Rows that the file has are not measured again; trained models are kept beside it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        one_seed(seed, path)
    found: dict[str, list[dict[str, Any]]] = {}
    for row in read_rows(path):
        if SETTINGS.items() <= row.items() and row["seed"] in seeds:
            found.setdefault(row["method"], []).append(row)
    lines = []
    for method, rows in found.items():
        mean = {key: statistics.mean(row[key] for row in rows) for key in ("share", "cpu")}
        pairs = zip(found.get(OURS, []), rows, strict=False)
        apart = [ours["test"] - row["test"] for ours, row in pairs]
        nats = interval([row["test"] for row in rows])
        less = interval(apart) if apart and method != OURS else "-"
        share, cpu = f"{mean['share']:.0%}", f"{mean['cpu']:.0f}"
        lines.append((method, rows[0]["epochs"], share, nats, less, cpu))
    columns = ("model", "epochs", "MACs", "nats per letter", f"{OURS} less this", "CPU s")
    every = [row for rows in found.values() for row in rows]
    record(
        "large_quality",
        every,
        columns,
        lines,
        seeds=len(seeds),
        rate=RATE,
        labels=LABELS,
        **SETTINGS,
    )


def one_seed(seed: int, path: Path) -> None:
    """The original, its cut before and after distillation, and the rival from fresh weights."""
    import keras

    import saikei as sk

    results = Results(path, {"figure": "quality", "seed": seed, **SETTINGS})
    train, validation, test, letters = text(SETTINGS["letters"])
    width, blocks = SETTINGS["width"], SETTINGS["blocks"]
    kwargs: dict[str, Any] = {"progress": False, "seed": seed, "batch_size": SETTINGS["batch"]}
    keras.utils.set_random_seed(seed)
    original = gpt2(letters, width, blocks, SETTINGS["heads"], LENGTH)
    whole = macs(original)

    def row(model: Any, work: Callable[[], Any], epochs: int, name: str) -> dict[str, Any]:
        """Do the work, and measure the model."""
        weights = path.with_name(f"{path.stem}-{seed}-{name}.weights.h5")
        cpu = seconds(work)
        model.save_weights(weights)
        scores = [sk.evaluate(model, part, metric="nats").value for part in (validation, test)]
        found = {"validation": scores[0], "test": scores[1], "cpu": cpu, "epochs": epochs}
        return {**found, "share": macs(model) / whole}

    def fitted(model: Any, epochs: int) -> Any:
        return sk.fit(model, train, validation, epochs=epochs, learning_rate=RATE, **kwargs)

    def distilled() -> Any:
        how = {"epochs": SETTINGS["distil"], "learning_rate": RATE, "alpha": LABELS}
        return sk.distill(cut, original, train, validation, **how, **kwargs)

    first, more = SETTINGS["first"], SETTINGS["distil"]
    results.add("original", lambda: row(original, lambda: fitted(original, first), first, "whole"))
    original.load_weights(path.with_name(f"{path.stem}-{seed}-whole.weights.h5"))
    calibration = keras.tree.map_structure(lambda leaf: leaf[:256], train)
    edit = sk.PruneChannels(sk.Budget(macs=0.5), scope="uniform")
    cuts: list[Any] = []
    cpu = seconds(lambda: cuts.append(edit(original, calibration)))
    cut = cuts[0]
    family = family_of(cut)
    assert family is not None
    rival = family.with_config(cut.backbone.get_config())
    results.add("cut alone", lambda: {**row(cut, lambda: None, first, "cut"), "cpu": cpu})
    results.add(OURS, lambda: row(cut, distilled, first + more, "distilled"))
    results.add(
        "fresh, all epochs",
        lambda: row(rival, lambda: fitted(rival, first + more), first + more, "fresh"),
    )


def interval(values: list[float]) -> str:
    """A mean with Student's 95 % interval over seeds."""
    if len(values) < 2:
        return f"{values[0]:.3f}"
    half = stats.t.ppf(0.975, len(values) - 1) * stats.sem(values)
    return f"{statistics.mean(values):.3f} ± {half:.3f}"


def macs(task: Any) -> int:
    """Multiply-accumulates of one sequence."""
    import saikei as sk

    return sk.profile(task, latency=False, input_shape=SEQUENCE).macs


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


def generation(size: str, new: int = 32, batch: int = 4) -> None:
    """Tokens per second with KerasHub's cache, compiled before it is timed, cut to half too."""
    import saikei as sk

    task = random_gpt2(size)
    edit = sk.PruneChannels(sk.Budget(macs=0.5), scope="uniform")
    cut = edit(task, input_shape=SEQUENCE)
    rows: list[dict[str, Any]] = []
    whole = macs(task)
    for name, model in {"original": task, "cut": cut}.items():
        model.compile(sampler="greedy")
        mask = np.arange(LENGTH)[None, :] < np.full((batch, 1), LENGTH - new)
        times = []
        for _ in range(3):
            given = {"token_ids": np.zeros((batch, LENGTH), "int32"), "padding_mask": mask * 1}
            start = time.perf_counter()
            model.generate(given, stop_token_ids=None)
            times.append(time.perf_counter() - start)
        rows.append(
            {"model": name, "share": macs(model) / whole, "speed": batch * new / min(times)}
        )
    lines = [(r["model"], f"{r['share']:.0%}", f"{r['speed']:,.0f}") for r in rows]
    columns = ("model", "MACs", "tokens per second")
    record("large_generation", rows, columns, lines, size=size, sequences=batch)


def surgery_table(sizes: list[str]) -> None:
    """A row for each size, measured in a process of its own."""
    steps = ("profile", "groups", "cut", "ranked", "with data")
    peaks = ("memory", "memory with data")
    rows = {row["model"]: row for row in recorded("large_surgery")}
    rows |= {size: {"model": size, **measured("surgery", size)} for size in sizes}
    by_size = sorted(rows.values(), key=lambda row: [*SHAPES].index(row["model"].rstrip("-")))
    lines = []
    for row in by_size:
        forward = row.get("forward")
        cells = [row["model"], f"{forward:.1f}" if forward else "-"]
        for step in steps:
            inside = f" ({row[step] / forward:.1f})" if forward and step in row else ""
            cells.append(f"{row[step]:.1f} s{inside}" if step in row else "-")
        cells += [f"{row[name]:.2f} ×" if name in row else "-" for name in peaks]
        lines.append(cells)
    columns = ("model", "forward s", *steps, *peaks)
    record("large_surgery", by_size, columns, lines, sequences=64, tokens=LENGTH)


def measured(what: str, size: str) -> dict[str, float]:
    """What is measured in a process of its own."""
    command = [sys.executable, __file__, what, size, "--one"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    row: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return row


def surgery(size: str) -> dict[str, float]:
    """Seconds of CPU of each step, and peaks of memory as multiples of the model.

    A name such as `1B-` leaves out what runs the model.
    """
    import saikei as sk

    sk.PruneChannels(0.5, scope="uniform")(gpt2(64, 16, 2, 4, 8))
    gc.collect()
    empty = resident("VmRSS")
    task = random_gpt2(size.rstrip("-"))
    gc.collect()
    alone = resident("VmRSS") - empty
    edit = sk.PruneChannels(0.5, scope="uniform")
    Path("/proc/self/clear_refs").write_text("5")
    found = {
        "profile": seconds(lambda: sk.profile(task, latency=False)),
        "groups": seconds(lambda: sk.channel_groups(task)),
        "cut": seconds(lambda: edit(task)),
    }
    found["memory"] = (resident("VmHWM") - empty) / alone
    if size.endswith("-"):
        return found
    rows = np.random.default_rng(0).integers(0, TOKENS, (64, LENGTH + 1), dtype=np.int32)
    data = pairs(rows)
    blocks = sk.RemoveLayers(0.25, ranking="influence", kinds=("block",), compensate=False)
    found["ranked"] = seconds(lambda: blocks.plan(task, data))
    found["with data"] = seconds(lambda: edit(task, data))
    found["memory with data"] = (resident("VmHWM") - empty) / alone
    task.predict(data[0], batch_size=8, verbose=0)
    found["forward"] = seconds(lambda: task.predict(data[0], batch_size=8, verbose=0))
    return found


def random_gpt2(size: str) -> Any:
    """GPT-2 of a size, with random weights."""
    shape = SHAPES[size]
    return gpt2(TOKENS, shape["hidden_dim"], shape["num_layers"], shape["num_heads"], 1024)


def growth(blocks: tuple[int, ...] = (4, 8, 16, 32)) -> None:
    """Seconds of CPU over the number of blocks, and the exponent of their growth."""
    import saikei as sk

    edit = sk.PruneChannels(0.5, scope="uniform")
    work: dict[str, Callable[[Any], Any]] = {
        "profile": lambda task: sk.profile(task, latency=False),
        "groups": sk.channel_groups,
        "cut": edit,
    }
    edit(gpt2(64, 16, 2, 4, 8))
    times: dict[str, list[float]] = {step: [] for step in work}
    for count in blocks:
        task = gpt2(1000, 256, count, 4, 64)
        for step, does in work.items():
            times[step].append(seconds(partial(does, task)))
    lines = []
    for step, found in times.items():
        exponent = np.polyfit(np.log(blocks), np.log(found), 1)[0]
        lines.append((step, *(f"{one:.2f} s" for one in found), f"{exponent:.2f}"))
    columns = ("step", *(f"{count} blocks" for count in blocks), "exponent")
    record("large_growth", [{"step": k, "seconds": v} for k, v in times.items()], columns, lines)


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
