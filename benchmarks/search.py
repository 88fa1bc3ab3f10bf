"""The whole search against its rivals, at equal total epochs.

- `p2`: at 25 % of the MACs, against training from scratch for as many epochs as the given network
  and the search have together, and against Torch-Pruning with distillation (MNIST-1D only);
- `p8`: at 100 % of the MACs, against the given network trained for as many epochs;
- `p9`: a cascade at 15 % of the MACs in the mean over rows, with its measured speed;
- `p10`: at 25 % of the MACs with 45 epochs, against other searches of 45 and one of 135.

    pip install '.[tensorflow,benchmarks]'
    apt-get install dataset-fashion-mnist
    python benchmarks/search.py p2 --data mnist1d --seeds 3
    python benchmarks/search.py p2 --data fashion --seeds 3
    python benchmarks/search.py p8 --data fashion --seeds 3
    python benchmarks/search.py p9 --data mnist1d-4000 --seeds 3
    python benchmarks/search.py p10 --data mnist1d-4000 --seeds 3

Each result is appended to a file of JSON lines as soon as it is there; what that file has is not
measured again, so that a run can go on, and with more seeds adds to it. At the end,
`results/search_FIGURE_DATA.json`. Everything is chosen on validation; test is looked at once for
each result.
"""

from __future__ import annotations

import argparse
import functools
import shutil
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
from search_peers import Found, earlier_plan, one_epoch_each, random_search
from search_rows import Results, read_rows, write
from search_tasks import RATES, TASKS, Task, accuracy, macs, mean_macs, narrow, predictions, trained

import saikei as sk
from saikei.graph import fresh_model
from saikei.modelfile import load_model
from saikei.models import CascadeModel
from saikei.search.events import Event

# Epochs of the search in `p10`, and the batches and alternating runs that speed is measured in.
FEW = 45
BATCHES = (32, 512)
RUNS = 9


@dataclass(frozen=True)
class Case:
    """A trained network with its data, for one seed, both made when they are first needed.

    Args:
        make: Makes the data and the network.
        seed: Seed of the data, the network and everything that is done with it.
        effort: Epochs of the search.
        kept: The folder of the trained network and of the runs of all efforts.
        results: What was measured.
        rates: Learning rates of trainings from scratch.
    """

    make: Callable[[], Task]
    seed: int
    effort: int
    kept: Path
    results: Results
    rates: tuple[float, ...]

    @functools.cached_property
    def task(self) -> Task:
        """Data and network."""
        return self.make()

    @functools.cached_property
    def model(self) -> keras.Model:
        """The network to compress, trained once."""
        path = self.kept / "given.keras"
        if not path.exists():
            task = self.task
            make = partial(task.network, 1.0)
            model = trained(task, make, task.epochs, self.seed, RATES[1:2])
            path.parent.mkdir(parents=True, exist_ok=True)
            model.save(path)
        return keras.saving.load_model(path)

    @property
    def folder(self) -> Path:
        """The folder of runs."""
        return self.kept / f"effort-{self.effort}"

    @property
    def pipeline(self) -> int:
        """Epochs of the given network and the search together."""
        return self.task.epochs + self.effort

    def scored(self, model: keras.Model, epochs: int, **more: Any) -> dict[str, Any]:
        """The row of a model."""
        return {
            "epochs": epochs,
            "macs": mean_macs(model, self.task.test[0]) / macs(self.model),
            "validation": accuracy(model, self.task.validation),
            "test": accuracy(model, self.task.test),
            **more,
        }

    def search(self, name: str, budget: sk.Budget, effort: int, **arguments: Any) -> Any:
        """A run of `optimize`, continued if it was stopped.

        The library depends on the network and the data alone, and is kept for all runs of them.
        """
        path, kept = self.folder / name, self.kept / "libraries"

        def share(event: Event) -> None:
            if event.kind == "stage" and kept.exists():
                shutil.copytree(kept, path / "libraries", dirs_exist_ok=True)

        run = sk.optimize(
            self.model,
            self.task.train,
            self.task.validation,
            budget,
            out=path,
            effort=effort,
            rivals=False,
            settings={"batch_size": self.task.batch_size},
            latency=False,
            seed=self.seed,
            progress=False,
            events=share,
            **arguments,
        )
        shutil.copytree(path / "libraries", kept, dirs_exist_ok=True)
        return run


def p2(case: Case) -> None:
    """At 25 % of the MACs, against training from scratch for the whole pipeline's epochs."""
    results = case.results
    results.add("given network", lambda: case.scored(case.model, case.task.epochs))

    def ours() -> dict[str, Any]:
        run = case.search("p2", sk.Budget(macs=0.25), case.effort)
        single = best_single(run).name
        family = run.chosen.family
        return case.scored(
            run.best, case.pipeline, chosen=run.chosen.name, family=family, single=single
        )

    row = results.add("optimize", ours)

    def scratch(make: Callable[[int], keras.Model]) -> dict[str, Any]:
        model = trained(case.task, make, case.pipeline, case.seed, case.rates)
        return case.scored(model, case.pipeline)

    def same() -> dict[str, Any]:
        folder = case.folder / "p2" / "candidates" / row["single"] / "model.keras"
        structure = keras.saving.load_model(folder)
        return scratch(lambda seed: fresh_model(structure, seed))

    def half() -> dict[str, Any]:
        limit = 0.25 * macs(case.model)
        return scratch(lambda seed: narrow(case.task, limit, seed))

    def peer() -> dict[str, Any]:
        from search_torch import torch_pruning_distilled

        return torch_pruning_distilled(
            case.task, case.model, 0.25, case.effort, case.rates, case.seed
        )

    results.add("half width from scratch", half)
    results.add("same structure from scratch", same)
    if case.results.key["data"].startswith("mnist1d"):
        results.add("Torch-Pruning with distillation", peer)


def p8(case: Case) -> None:
    """At 100 % of the MACs, against the given network trained for the whole pipeline's epochs."""

    def ours() -> dict[str, Any]:
        run = case.search("p8", sk.Budget(macs=1.0), case.effort)
        family = run.chosen.family
        return case.scored(run.best, case.pipeline, chosen=run.chosen.name, family=family)

    def alone() -> dict[str, Any]:
        make = partial(case.task.network, 1.0)
        kept = case.folder / "alone"
        model = trained(case.task, make, case.pipeline, case.seed, case.rates, folder=kept)
        return case.scored(model, case.pipeline)

    results = case.results
    results.add("given network", lambda: case.scored(case.model, case.task.epochs))
    results.add("optimize", ours)
    results.add("one network for as long", alone)


def p9(case: Case) -> None:
    """A cascade at 15 % of the MACs in the mean over rows, against the given network."""
    results = case.results
    results.add("given network", lambda: case.scored(case.model, case.task.epochs))
    budget = sk.Budget(macs=0.15, count="mean")
    run = functools.cache(lambda: case.search("p9", budget, case.effort))

    def shown(name: str) -> dict[str, Any]:
        found = run().run.candidate(name)
        model = load_model(run().folder / "candidates" / name / "model.keras")
        row = case.scored(model, case.pipeline, chosen=name, family=found.family)
        return {**row, **behind(model, case), **speeds(model, case)}

    def shipped() -> dict[str, Any]:
        row = shown(run().chosen.name)
        assert row["test"] == accuracy(run().best, case.task.test)
        return row

    def cascade() -> dict[str, Any]:
        found = [c for c in run().candidates if c.family == "cascade"]
        if not found:
            raise SystemExit("The search found no cascade within the budget.")
        return shown(found[0].name)

    results.add("cascade of `optimize`", cascade)
    results.add("its best single network", lambda: shown(best_single(run()).name))
    results.add("what `optimize` ships", shipped)


def p10(case: Case) -> None:
    """At 25 % of the MACs, against other searches with as many epochs, and one with 135."""
    results = case.results
    results.add("given network", lambda: case.scored(case.model, 0))

    def ours() -> dict[str, Any]:
        run = case.search("p10", sk.Budget(macs=0.25), FEW)
        return case.scored(run.best, FEW, chosen=run.chosen.name, family=run.chosen.family)

    def theirs(search: Callable[..., Found], *arguments: Any) -> Callable[[], dict[str, Any]]:
        def measured() -> dict[str, Any]:
            found = search(case.task, case.model, 0.25, *arguments)
            return case.scored(found.model, found.epochs)

        return measured

    first, second = np.random.default_rng(case.seed).spawn(2)
    results.add("`optimize`", ours)
    results.add("random search", theirs(random_search, FEW, first))
    results.add("one epoch each, then the best", theirs(one_epoch_each, FEW, second))
    results.add("the earlier plan", theirs(earlier_plan, case.seed))


def behind(model: keras.Model, case: Case) -> dict[str, Any]:
    """By how much the given network is better on validation, with half of its 95 % interval."""
    x, y = case.task.validation
    right = [predictions(one, (x, y)).argmax(axis=1) == y for one in (case.model, model)]
    difference = right[0].astype(float) - right[1]
    half = 1.96 * difference.std() / np.sqrt(len(y))
    return {"behind": float(difference.mean()), "behind_half": float(half)}


def speeds(model: keras.Model, case: Case) -> dict[str, float]:
    """How many times as many rows a second as the given network, by turns, for each batch size."""
    x = case.task.test[0][:4096]
    found = {}
    for size in BATCHES:
        pairs = [(seconds(case.model, x, size), seconds(model, x, size)) for _ in range(RUNS + 1)]
        found[f"speed_{size}"] = statistics.median(theirs / ours for theirs, ours in pairs[1:])
    return found


def seconds(model: keras.Model, x: np.ndarray, size: int) -> float:
    """How long all rows take, batch by batch, without what Keras's `predict` does around it."""
    start = time.perf_counter()
    if isinstance(model, CascadeModel):
        model.predict(x, size)
    else:
        for first in range(0, len(x), size):
            model.predict_on_batch(x[first : first + size])
    return time.perf_counter() - start


def best_single(run: Any) -> Any:
    """The trained candidate that is best on validation."""
    fitting = [c for c in run.candidates if c.kind in ("kept", "fresh") and c.fits]
    return max(fitting, key=lambda c: (c.validation.value, -c.validation.loss))


FIGURES = {"p2": p2, "p8": p8, "p9": p9, "p10": p10}


def main() -> None:
    """Measure one figure, write its results and print its table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("figure", choices=FIGURES, nargs="?", default="p2")
    parser.add_argument("--data", choices=TASKS, default="mnist1d")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--effort", type=int, default=45, help="epochs of the search")
    parser.add_argument("--rates", type=float, nargs="+", default=RATES, help="from scratch")
    parser.add_argument("--rows", type=Path, default=Path("search.jsonl"), help="results")
    parser.add_argument("--folder", type=Path, default=Path("search-runs"), help="runs")
    arguments = parser.parse_args()
    figure, data, effort = arguments.figure, arguments.data, arguments.effort
    for seed in range(arguments.seeds):
        key = {"figure": figure, "data": data, "seed": seed, "effort": effort}
        print(f"{figure}, {data}, seed {seed}", file=sys.stderr, flush=True)
        results = Results(arguments.rows, key)
        kept = arguments.folder / f"{data}-{seed}"
        make = partial(TASKS[data], seed)
        FIGURES[figure](Case(make, seed, effort, kept, results, tuple(arguments.rates)))
    key = {"figure": figure, "data": data, "effort": effort}
    rows = [row for row in read_rows(arguments.rows) if key.items() <= row.items()]
    rows = [row for row in rows if row["seed"] < arguments.seeds]
    name = f"search_{figure}_{data.replace('-', '_')}"
    write(name, rows, effort=effort, seeds=arguments.seeds)


if __name__ == "__main__":
    main()
