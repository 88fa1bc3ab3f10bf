"""The whole search against its rivals, at equal total epochs.

- `p2`: at 25 % of the MACs, against training from scratch for as many epochs as the given network
  and the search have together, and against Torch-Pruning with distillation (MNIST-1D only);
- `p8`: at 100 % of the MACs, against the given network trained for as many epochs.

    pip install '.[tensorflow,benchmarks]'
    apt-get install dataset-fashion-mnist
    python benchmarks/search.py p2 --data mnist1d --seeds 3
    python benchmarks/search.py p8 --data fashion --seeds 3

Each result is appended to a file of JSON lines as soon as it is there; what that file has is not
measured again, so that a run can go on, and with more seeds adds to it. At the end, a table in
Markdown. Everything is chosen on validation; test is looked at once for each result.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import platform
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
from scipy import stats
from search_tasks import RATES, TASKS, Task, accuracy, macs, narrow, trained

import saikei as sk
from saikei.graph import fresh_model
from saikei.search.events import Event


@dataclass
class Results:
    """Rows of a file of JSON lines, for one figure, data set and seed.

    Args:
        path: The file.
        key: What all rows have in common.
    """

    path: Path
    key: dict[str, Any]
    rows: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for row in read_rows(self.path):
            if {name: row.get(name) for name in self.key} == self.key:
                self.rows[row["method"]] = row

    def add(self, method: str, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The row of a method, measured unless the file has it."""
        if method not in self.rows:
            print(f"  {method} …", file=sys.stderr, flush=True)
            started = time.perf_counter()
            found = measure()
            seconds = round(time.perf_counter() - started, 1)
            row = {**self.key, "method": method, **found, "seconds": seconds, **versions()}
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            self.rows[method] = row
            print(f"    {found}", file=sys.stderr, flush=True)
        return self.rows[method]


def versions() -> dict[str, str]:
    """What the figures depend on beside the seed."""
    backend = keras.backend.backend()
    return {
        "python": platform.python_version(),
        "keras": keras.__version__,
        "backend": f"{backend} {importlib.metadata.version(backend)}",
    }


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a file; none if there is no file."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return [json.loads(line) for line in lines]


@dataclass(frozen=True)
class Case:
    """A trained network with its data, for one seed.

    Args:
        task: Data and network.
        model: The trained network.
        seed: Seed of the data, the network and everything that is done with it.
        effort: Epochs of the search.
        folder: Where runs and the trained network are kept.
        results: What was measured.
        rates: Learning rates of trainings from scratch.
    """

    task: Task
    model: keras.Model
    seed: int
    effort: int
    folder: Path
    results: Results
    rates: tuple[float, ...]

    @property
    def pipeline(self) -> int:
        """Epochs of the given network and the search together."""
        return self.task.epochs + self.effort

    def scored(self, model: keras.Model, epochs: int, **more: Any) -> dict[str, Any]:
        """The row of a model."""
        return {
            "epochs": epochs,
            "macs": macs(model) / macs(self.model),
            "validation": accuracy(model, self.task.validation),
            "test": accuracy(model, self.task.test),
            **more,
        }

    def search(self, name: str, budget: sk.Budget, effort: int, **arguments: Any) -> Any:
        """A run of `optimize`, continued if it was stopped.

        The library depends on the network and the data alone, and is kept for all runs of them.
        """
        path, kept = self.folder / name, self.folder.parent / "libraries"

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
    task, results = case.task, case.results
    whole = macs(case.model)
    results.add("given network", lambda: case.scored(case.model, task.epochs))

    def ours() -> dict[str, Any]:
        run = case.search("p2", sk.Budget(macs=0.25), case.effort)
        chosen = run.chosen
        return case.scored(
            run.best,
            case.pipeline,
            chosen=chosen.name,
            family=chosen.family,
            single=best_single(run).name,
        )

    row = results.add("optimize", ours)

    def same() -> dict[str, Any]:
        folder = case.folder / "p2" / "candidates" / row["single"] / "model.keras"
        structure = keras.saving.load_model(folder)
        model = trained(
            task, lambda seed: fresh_model(structure, seed), case.pipeline, case.seed, case.rates
        )
        return case.scored(model, case.pipeline)

    def half() -> dict[str, Any]:
        model = trained(
            task,
            lambda seed: narrow(task, 0.25 * whole, seed),
            case.pipeline,
            case.seed,
            case.rates,
        )
        return case.scored(model, case.pipeline)

    results.add("half width from scratch", half)
    results.add("same structure from scratch", same)
    if task.name == "mnist1d":
        from search_torch import torch_pruning_distilled

        results.add(
            "Torch-Pruning with distillation",
            lambda: torch_pruning_distilled(
                task, case.model, 0.25, case.effort, case.rates, case.seed
            ),
        )


def p8(case: Case) -> None:
    """At 100 % of the MACs, against the given network trained for the whole pipeline's epochs."""
    task, results = case.task, case.results

    def ours() -> dict[str, Any]:
        run = case.search("p8", sk.Budget(macs=1.0), case.effort)
        family = run.chosen.family
        return case.scored(run.best, case.pipeline, chosen=run.chosen.name, family=family)

    def alone() -> dict[str, Any]:
        make = partial(task.network, 1.0)
        model = trained(task, make, case.pipeline, case.seed, case.rates)
        return case.scored(model, case.pipeline)

    results.add("given network", lambda: case.scored(case.model, task.epochs))
    results.add("optimize", ours)
    results.add("one network for as long", alone)


def best_single(run: Any) -> Any:
    """The trained candidate that is best on validation."""
    fitting = [c for c in run.candidates if c.kind in ("kept", "fresh") and c.fits]
    return max(fitting, key=lambda c: (c.validation.value, -c.validation.loss))


FIGURES = {"p2": p2, "p8": p8}


def main() -> None:
    """Measure one figure and print its table."""
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
        task = TASKS[data](seed)
        folder = arguments.folder / f"{data}-{seed}"
        model = given(task, seed, folder / "given.keras")
        results = Results(arguments.rows, key)
        runs = folder / f"effort-{effort}"
        FIGURES[figure](Case(task, model, seed, effort, runs, results, tuple(arguments.rates)))
    key = {"figure": figure, "data": data, "effort": effort}
    rows = [row for row in read_rows(arguments.rows) if key.items() <= row.items()]
    print(table(rows))


def given(task: Task, seed: int, path: Path) -> keras.Model:
    """The network to compress, trained once."""
    if not path.exists():
        model = trained(task, lambda one: task.network(1.0, one), task.epochs, seed, RATES[1:2])
        path.parent.mkdir(parents=True, exist_ok=True)
        model.save(path)
    return keras.saving.load_model(path)


def table(rows: list[dict[str, Any]]) -> str:
    """Mean and 95 % interval over seeds for each method."""
    lines = [
        "| method | epochs | MACs | test accuracy | seeds |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for method in dict.fromkeys(row["method"] for row in rows):
        ours = [row for row in rows if row["method"] == method]
        values = 100 * np.array([row["test"] for row in ours])
        share = 100 * np.mean([row["macs"] for row in ours])
        lines.append(
            f"| {method} | {ours[0]['epochs']} | {share:.1f} % | {interval(values)} | {len(ours)} |"
        )
    return "\n".join(lines)


def interval(values: np.ndarray) -> str:
    """A mean with Student's 95 % interval."""
    if len(values) < 2:
        return f"{values.mean():.2f} %"
    half = stats.t.ppf(0.975, len(values) - 1) * stats.sem(values)
    return f"{values.mean():.2f} ± {half:.2f} %"


if __name__ == "__main__":
    main()
