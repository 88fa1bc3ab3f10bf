"""How far averages of whole networks are ahead of one, with three times its costs.

For each of the jobs of `jobs.py` three networks of the whole width are trained on labels, each for
the epochs of the given network and of a search together, and their probabilities are averaged. A
search at the MACs of one network can hardly gain more by a fusion.

    pip install '.[tensorflow,benchmarks]'
    pip install --no-deps aeon
    apt-get install dataset-fashion-mnist r-cran-mlbench
    python benchmarks/job_bounds.py letter vowels

Each result is appended to a file of JSON lines, and what that file has is not measured again. At
the end, `results/job_bounds.json`.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from job_data import JOBS, Job
from record import record
from search_rows import Results, read_rows
from search_tasks import accuracy, predictions, trained

MEMBERS = 3
METHOD = "average"
COLUMNS = ("job", "one network", "average of three", "fewer errors")


def main() -> None:
    """Measure jobs and write their results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("jobs", nargs="+", choices=JOBS, help="which")
    parser.add_argument("--rows", type=Path, default=Path("build/job_bounds.jsonl"))
    arguments = parser.parse_args()
    arguments.rows.parent.mkdir(parents=True, exist_ok=True)
    for name in arguments.jobs:
        Results(arguments.rows, {"job": name}).add(METHOD, lambda name=name: measure(JOBS[name]))
    measured = {row["job"]: row for row in read_rows(arguments.rows)}
    rows = [measured[name] for name in JOBS if name in arguments.jobs]
    record("job_bounds", rows, COLUMNS, map(line, rows), members=MEMBERS)


def measure(job: Job) -> dict[str, Any]:
    """The accuracy of each network and of their average; the rate is the best for the first."""
    task = job.task(0)
    epochs = job.epochs + job.effort

    def network(seed: int, rates: tuple[float, ...]) -> Any:
        return trained(task, lambda seed: task.network(1.0, seed), epochs, seed, rates)

    tried = {rate: network(0, (rate,)) for rate in job.rates}
    rate = max(tried, key=lambda rate: accuracy(tried[rate], task.validation))
    models = [tried[rate], *(network(seed, (rate,)) for seed in range(1, MEMBERS))]
    outputs = [predictions(model, task.test) for model in models]
    single, average = (
        [float(np.mean(one.argmax(axis=1) == task.test[1])) for one in each]
        for each in (outputs, [np.mean(outputs, axis=0)])
    )
    return {"epochs": epochs, "rate": rate, "single": single, "test": average[0]}


def line(row: dict[str, Any]) -> list[str]:
    """A line of the table."""
    single = float(np.mean(row["single"]))
    fewer = (row["test"] - single) / (1 - single)
    return [
        row["job"],
        *(f"{100 * value:.2f} %" for value in (single, row["test"])),
        f"{100 * fewer:.1f} %",
    ]


if __name__ == "__main__":
    main()
