"""From a library to structures: how fast, how well losses are predicted, what a library costs.

- `front`: a library of ResNet50 whose costs are counted and whose losses are made up, since time
  does not depend on them, answers 20 budgets;
- `ranks`: a small residual network is trained on digits, its library is measured, random structures
  are stitched and refitted, and their real divergence is compared with the predicted one;
- `library`: the time of measuring options of ResNet50 against that of forward passes;
- `share`: what a small search spends on anything but training and evaluation.

Times are CPU seconds of this process, of parts of one run, so that other programs matter less. Each
part writes `results/library_PART.json`.

    pip install '.[tensorflow]'
    python benchmarks/search_library.py front ranks library share
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from keras import layers
from record import record

import saikei as sk
from saikei.calibration.run import Run
from saikei.channels import map_channels
from saikei.costs import Counts, count_costs
from saikei.costs.per_call import CallCosts, calls_of
from saikei.datasets import digits
from saikei.edits import PruneChannels
from saikei.edits.options import Option, stitch
from saikei.graph import Graph, build, read
from saikei.search.library import Library, Measured, build_library, measure_site, nearby
from saikei.search.library.build_library import options_of, shared_for
from saikei.search.library.compiled_parts import CompiledParts
from saikei.search.library.measure import SiteTask
from saikei.search.propose import Proposer, agreement, random_structures, resolved

# The name in its package is that of a function.
whole_refit = importlib.import_module("saikei.calibration.refit")

BUDGETS = np.linspace(0.1, 0.9, 20)
ROWS = 256
# Rows of an epoch whose forward passes a library is compared with.
EPOCH = 10_000
# Options of one run of neighbours, where not all are measured.
TOGETHER = 6


def main() -> None:
    """Run the chosen parts and print them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parts = {"front": front, "ranks": ranks, "library": library_of_resnet, "share": share}
    parser.add_argument("parts", nargs="*", choices=parts, default=["front", "ranks"])
    parser.add_argument("--structures", type=int, default=50, help="random structures to measure")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="of the small networks")
    parser.add_argument(
        "--sizes", type=int, nargs="+", default=[64], help="height and width of images"
    )
    parser.add_argument(
        "--every", type=int, default=1, help="measure every n-th run of its options"
    )
    arguments = parser.parse_args()
    for part in arguments.parts:
        parts[part](arguments)


def front(_: argparse.Namespace) -> None:
    """The time of 20 budgets on ResNet50."""
    graph = read(keras.applications.ResNet50(weights=None))
    library = made_up(graph)
    rows = []

    def took(what: str, begin: float) -> None:
        rows.append({"what": what, "seconds": time.process_time() - begin})

    begin = time.process_time()
    proposer = Proposer(graph, library)
    spaces = proposer.spaces()
    took("tables of costs, once", begin)
    begin = time.process_time()
    front = proposer.path("macs")
    found = [front.within(share * library.original.macs) for share in BUDGETS]
    kept = sum(one is not None for one in found)
    took(f"the whole front, and {kept} budgets of it", begin)
    begin = time.process_time()
    structure = resolved(proposer, sk.Budget(macs=0.3))
    took("one budget, with its graph cut and counted", begin)
    table = [(row["what"], f"{row['seconds']:.2f} s") for row in rows]
    sizes = {"sites": len(library.sites), "options": len(library.entries), "depths": len(spaces)}
    share = structure.costs.macs / library.original.macs
    record("library_front", rows, ("ResNet50", "CPU"), table, **sizes, macs=f"{share:.4f} for 0.3")


def made_up(graph: Graph) -> Library:
    """A library of channel cuts with counted costs and made-up losses."""
    channel_map = map_channels(graph)
    whole = count_costs(channel_map)
    costs, draw = CallCosts(channel_map), np.random.default_rng(0)
    groups = [group for group in channel_map.groups if not group.pinned]
    by_group = zip(groups, calls_of(channel_map, groups), strict=True)
    calls = {group.name: indices for group, indices in by_group}
    entries = []
    for option in PruneChannels.options(graph):
        name = option.site.removeprefix("channels:")
        keep = np.ones(channel_map.count, dtype=bool)
        starts = {owner: start for start, _, owner in channel_map.blocks}
        assert isinstance(option.edit, sk.DropChannels)
        for layer, gone in option.edit.channels.items():
            keep[channel_map.channel_of[starts[layer] + np.array(gone)]] = False
        saved = sum(costs.of(i) - costs.of(i, keep) for i in calls[name])
        counts = Counts(
            params=whole.params - int(saved[1]),
            macs=whole.macs - int(saved[0]),
            bytes=whole.bytes - int(saved[2]),
        )
        loss = float(draw.uniform(0.2, 2) * (saved[0] / whole.macs) ** 0.7)
        entries.append(Measured(option, loss, 0.0, counts))
    return Library(tuple(entries), (), (), whole, 0, "nats", 0.0)


def ranks(arguments: argparse.Namespace) -> None:
    """Rank correlation of predicted and real divergence of random structures, for each seed."""
    rows = [{"seed": seed, **_ranks(seed, arguments.structures)} for seed in arguments.seeds]
    columns = ("seed", "options", "rank correlation", "with a weight for each method")
    numbers = ("correlation", "reweighted")
    table = [
        (row["seed"], row["options"], *(f"{row[name]:.3f}" for name in numbers)) for row in rows
    ]
    record("library_ranks", rows, columns, table, structures=arguments.structures)


def _ranks(seed: int, count: int) -> dict[str, float]:
    data = digits(seed)
    assert data.validation is not None
    x, y = data.train
    held_out = data.validation[0]
    model = trained(seed, (x, y))
    graph = read(model)
    given = np.asarray(model(held_out), np.float64)

    def loss(options: tuple[Option, ...]) -> float:
        _, stitched = stitch(graph, options, (x[:ROWS], y[:ROWS]))
        outputs = np.asarray(build(stitched)(held_out), np.float64)
        return float(np.mean(np.sum(given * np.log((given + 1e-9) / (outputs + 1e-9)), axis=1)))

    library = build_library(model, (x, y), data.validation)
    spaces = Proposer(graph, library).spaces()
    structures = random_structures(spaces, count, np.random.default_rng(seed))
    found = agreement(library, structures, [loss(options) for options in structures])
    return {
        "options": len(library.entries),
        "correlation": found.correlation,
        "reweighted": found.reweighted_correlation,
        "ratio": found.ratio,
    }


def library_of_resnet(arguments: argparse.Namespace) -> None:
    """The time of a library of ResNet50 in forward passes of an epoch."""
    rows = [_library_of_resnet(size, arguments.every) for size in arguments.sizes]
    columns = ("pixels", f"forward passes of {EPOCH:,}", "once", "all options", "share")
    table = []
    for row in rows:
        seconds = (f"{row[name]:,.0f} s" for name in ("passes", "once", "all"))
        table.append((row["size"], *seconds, f"{(row['once'] + row['all']) / row['passes']:.2f}"))
    measured = f"{rows[0]['measured']} of {rows[0]['options']}"
    record("library_cost", rows, columns, table, measured=measured)


def _library_of_resnet(size: int, every: int) -> dict[str, float]:
    draw = np.random.default_rng(0)
    keras.utils.set_random_seed(0)
    model = keras.applications.ResNet50(weights=None, input_shape=(size, size, 3), classes=10)
    x = draw.normal(size=(512, size, size, 3)).astype("float32")
    y = draw.integers(0, 10, len(x))
    model.predict_on_batch(x[:32])
    begin = time.process_time()
    for start in range(32, 96, 32):
        model.predict_on_batch(x[start : start + 32])
    epoch = (time.process_time() - begin) * EPOCH / 64
    begin = time.process_time()
    data, graph = (x[:256], y[:256]), read(model)
    options = options_of(graph, data)
    shared = shared_for(model, map_channels(graph), data, (x[256:], y[256:]), options)
    once = time.process_time() - begin
    # Neighbours share what comes before them, as in the tasks of a library.
    chosen = [o for i, o in enumerate(options) if i // TOGETHER % every == 0]
    begin = time.process_time()
    measure_site(shared, SiteTask(tuple((option,) for option in chosen)))
    seconds = time.process_time() - begin
    # Blocks are measured up to three times, as they are removed one by one.
    count = len(options) + 2 * sum(option.edit.one_by_one for option in options)
    return {
        "size": size,
        "passes": epoch,
        "once": once,
        "all": seconds * count / len(chosen),
        "options": len(options),
        "measured": len(chosen),
    }


class Clock:
    """CPU seconds by kind; of functions that call each other the outermost one counts."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()
        self.inside: str | None = None

    @contextlib.contextmanager
    def counting(self, owner: Any, name: str, kind: str) -> Iterator[None]:
        """Count the time of a method of a class, or of a function of a module."""
        method: Callable[..., Any] = getattr(owner, name)

        def timed(*args: Any, **kwargs: Any) -> Any:
            if self.inside is not None:
                return method(*args, **kwargs)
            self.inside, begin = kind, time.process_time()
            try:
                return method(*args, **kwargs)
            finally:
                self.seconds[kind] += time.process_time() - begin
                self.inside = None

        setattr(owner, name, timed)
        try:
            yield
        finally:
            setattr(owner, name, method)


def share(arguments: argparse.Namespace) -> None:
    """The share of a search that is neither training nor evaluation, by stages.

    Refits, which fit weights to data by least squares, are counted apart from training.
    """
    seed = arguments.seeds[0]
    data = digits(seed)
    model = trained(seed, data.train)
    clock, stages = Clock(), Counter[str]()
    stage, last = "beginning", (time.process_time(), 0.0)

    def note(event: Any) -> None:
        nonlocal stage, last
        now = time.process_time(), sum(clock.seconds.values())
        stages[stage] += (now[0] - last[0]) - (now[1] - last[1])
        last = now
        if event.kind == "stage":
            kinds = {kind: round(seconds, 1) for kind, seconds in clock.seconds.items()}
            print(f"  after {stage}: {kinds}, anything else {stages[stage]:.1f} s", flush=True)
            stage = event.values["what"]

    evaluating = ("evaluate", "predict", "predict_on_batch", "test_on_batch")
    counted = [(keras.Model, "fit", "training"), (keras.Model, "train_on_batch", "training")]
    counted += [(keras.Model, name, "evaluation") for name in evaluating]
    computing = ("step", "advance", "peek", "outputs", "tensors")
    counted += [(Run, name, "evaluation") for name in computing]
    counted += [(CompiledParts, "run", "evaluation")]
    fitting = (nearby, "_fitted_linear"), (nearby, "refit_batch_norm")
    fitting += (whole_refit, "fit_linear"), (whole_refit, "refit_batch_norm")
    counted += [(module, name, "refits") for module, name in fitting]
    begin = time.process_time()
    with contextlib.ExitStack() as stack, tempfile.TemporaryDirectory() as folder:
        for owner, name, kind in counted:
            stack.enter_context(clock.counting(owner, name, kind))
        sk.optimize(
            model,
            data.train,
            data.validation,
            sk.Budget(macs=0.3),
            out=folder + "/run",
            latency=False,
            seed=seed,
            progress=False,
            events=note,
        )
    whole = time.process_time() - begin
    rest = whole - sum(clock.seconds.values())
    kinds = [*clock.seconds.most_common(), ("anything else", rest)]
    rows = [{"kind": kind, "seconds": seconds} for kind, seconds in kinds]
    rows += [{"stage": name, "seconds": seconds} for name, seconds in stages.most_common()]
    table = [
        (
            row["kind"] if "kind" in row else f"of this, {row['stage']}",
            f"{row['seconds']:.1f} s",
            f"{100 * row['seconds'] / whole:.1f} %",
        )
        for row in rows
    ]
    record("library_share", rows, ("what", "CPU", "share"), table, seed=seed)


def trained(seed: int, data: tuple[np.ndarray, np.ndarray]) -> keras.Model:
    """A small residual network."""
    keras.utils.set_random_seed(seed)
    tensor = keras.Input((8, 8, 1))
    x = layers.Conv2D(16, 3, padding="same", activation="relu", name="stem")(tensor)
    for number in range(2):
        y = layers.Conv2D(24, 3, padding="same", activation="relu", name=f"wide{number}")(x)
        y = layers.Conv2D(16, 3, padding="same", name=f"narrow{number}")(y)
        x = layers.Activation("relu")(layers.Add(name=f"add{number}")([x, y]))
    x = layers.Conv2D(32, 3, activation="relu", name="top")(x)
    x = layers.Dense(32, activation="relu", name="hidden")(layers.Flatten()(x))
    model = keras.Model(tensor, layers.Dense(10, activation="softmax", name="classes")(x))
    sk.fit(model, data, epochs=8, batch_size=32, learning_rate=3e-3, seed=seed, progress=False)
    return model


if __name__ == "__main__":
    main()
