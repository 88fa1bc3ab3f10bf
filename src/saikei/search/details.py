"""The details of a run: what its report shows besides the record, made from its folder."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from saikei.budget import Budget
from saikei.checks import input_count
from saikei.codec import from_jsonable, to_jsonable
from saikei.costs import machine
from saikei.data import gathered
from saikei.errors import EditError, InputError, SaikeiError
from saikei.judging import attention_of
from saikei.models import CascadeModel
from saikei.reading import read_json
from saikei.runs.candidate import Candidate
from saikei.runs.details import (
    Details,
    MemberRow,
    Point,
    PredictedFront,
)
from saikei.runs.graph_diff import GraphDiff, compare_graphs
from saikei.runs.record import Run
from saikei.scoring.inference import Inference
from saikei.scoring.labelled import Labelled, Outputs
from saikei.search.folder import RunFolder
from saikei.search.library import Library
from saikei.search.measurements import (
    SAVED,
    file_times,
    measures_time,
    sensitivity_of,
    times_of,
)
from saikei.search.outcome import outcome_of, predicted_classes
from saikei.search.propose import Proposer
from saikei.writing import write_text

# Graphs of networks, and structures of a front, that are shown.
_NETWORKS = 4
_POINTS = 24


def write_details(
    run: Run, folder: RunFolder, judge: Labelled | None = None, classes: Sequence[str] = ()
) -> Details:
    """Make the details of a run and store them in its folder, as `details.json`.

    Args:
        run: A run whose candidates are all in the folder.
        folder: The folder.
        judge: Labels and inputs of the validation data; without it, nothing is shown of samples.
        classes: Names of the classes; empty if they are unknown.
    """
    chosen = run.candidate(run.chosen)
    shipped = [run.candidate(name) for name in chosen.members] or [chosen]
    outputs = {c.name: folder.outputs(c.name) for c in (run.candidate(run.baseline), chosen)}
    details = Details(
        graphs=_graphs(run, shipped[:_NETWORKS], folder),
        fronts=_fronts(run, folder),
        outcome=None
        if judge is None
        else outcome_of(judge, outputs[run.baseline], outputs[run.chosen], classes),
        members=() if judge is None else _members(run, chosen, judge, folder),
        classes=tuple(classes),
        sensitivity=sensitivity_of(run, folder),
        times=times_of(run, folder),
        machine=machine(),
    )
    _store(details, folder)
    return details


def details_of(run: Run, folder: RunFolder) -> Details:
    """The stored details of a run; where there are none, those that its folder allows."""
    path = _path(folder)
    if not path.is_file():
        return write_details(run, folder)
    try:
        return from_jsonable(Details, read_json(path, "The details of the run"))
    except InputError as error:
        raise InputError(
            f"'{path}' is damaged, or another version of Saikei wrote it: delete this file alone, "
            "and 'saikei report' makes it from the rest of the folder (add --data to see samples)."
        ) from error


def details_on(run: Run, folder: RunFolder, data: Any, classes: Sequence[str] = ()) -> Details:
    """The details of a run, with what its models look at in data, and on which they differ.

    Args:
        run: A finished run.
        folder: Its folder.
        data: `(x, y)` arrays that no model of the run was trained on.
        classes: Names of the classes; empty if they are unknown.

    Raises:
        DataError: If the data does not fit the models.
    """
    stored = details_of(run, folder)
    original, shipped = folder.model(run.baseline), folder.load(folder.best)
    names = tuple(classes) or stored.classes
    outcome, whole = stored.outcome, gathered(data, labels=False, inputs=input_count(original))
    if outcome is None and whole.y is not None:
        before = Labelled((), (), x=whole.x).predict(original)
        inference = Inference(original)
        judge = Labelled.of(inference.tasks(whole.y), inference.labels(whole.y), before)
        judge = replace(judge, x=whole.x)
        outcome = outcome_of(judge, before, judge.predict(shipped), names)
    attention = attention_of(shipped, data, original, names)
    attention = replace(attention, models=(run.baseline, run.chosen))
    return replace(stored, outcome=outcome, classes=names, attention=attention)


def details_with_files(run: Run, folder: RunFolder) -> Details:
    """The details of a run, with the times of exported files, which are stored among them.

    Args:
        run: A finished run.
        folder: Its folder.
    """
    stored = details_of(run, folder)
    known = [one for one in stored.times if not one.exported]
    details = replace(stored, times=(*known, *file_times(run, folder)), machine=machine())
    _store(details, folder)
    return details


def _store(details: Details, folder: RunFolder) -> None:
    write_text(_path(folder), json.dumps(to_jsonable(details), indent=1))


def _path(folder: RunFolder) -> Path:
    return folder.path / "details.json"


def _graphs(run: Run, shipped: Sequence[Candidate], folder: RunFolder) -> tuple[GraphDiff, ...]:
    found = []
    for candidate in shipped:
        original = candidate.parent or run.baseline
        if candidate.name != original and (folder.candidates / candidate.name).is_dir():
            try:
                models = folder.model(original), folder.model(candidate.name)
                diff = compare_graphs(*models, timed=measures_time(run))
            # Neither a file that is gone nor a model that cannot be read hides the rest.
            except (SaikeiError, OSError):
                continue
            found.append(replace(diff, first=original, second=candidate.name))
    return tuple(found)


def _fronts(run: Run, folder: RunFolder) -> Mapping[str, PredictedFront]:
    axis = run.cost_axis if run.cost_axis in SAVED else "macs"
    found = {}
    for name in run.library:
        try:
            library = Library.load(folder.library(name))
            proposer = Proposer(folder.model(name), library)
        except (SaikeiError, OSError):
            continue
        original = {one: float(getattr(library.original, one)) for one in SAVED}
        found[name] = PredictedFront(library.unit, original, {axis: _points(proposer, axis)})
    return found


def _points(proposer: Proposer, axis: str) -> tuple[Point, ...]:
    """Structures from the front along one cost, cheapest first, with their costs as counted."""
    front = proposer.path(axis).least()
    chosen = np.unique(np.linspace(0, len(front) - 1, _POINTS).round().astype(int))
    counter = proposer.counter(Budget.from_dict({axis: 1.0}))
    points = []
    for solution in (front[i] for i in chosen) if front else ():
        options = solution.space.options(solution.levels)
        try:
            counted = counter(options)[1]
        except EditError:
            continue
        changes = tuple(f"{o.site.partition(':')[2] or o.site}: {o.change}" for o in options)
        costs = {name: float(getattr(counted, name)) for name in SAVED}
        points.append(Point(costs, float(solution.loss), changes))
    kept: list[Point] = []
    for point in sorted(points, key=lambda one: (one.costs[axis], one.loss)):
        if not kept or point.loss < kept[-1].loss:
            kept.append(point)
    return tuple(kept)


def _members(
    run: Run, chosen: Candidate, judge: Labelled, folder: RunFolder
) -> tuple[MemberRow, ...]:
    """The members of a fused model; none for a single network, or several outputs."""
    if not chosen.members or len(judge.tasks) != 1:
        return ()
    outputs = [folder.outputs(name) for name in chosen.members]
    classify = judge.tasks[0].kind in ("binary", "multiclass")
    classes = [predicted_classes(judge, one) for one in outputs] if classify else []
    seen = _rows_seen(folder)
    rows = []
    for number, name in enumerate(chosen.members):
        agreement = [float((classes[number] == other).mean()) for other in classes]
        rows.append(
            MemberRow(
                name,
                chosen.weights[number] if chosen.weights else None,
                run.candidate(name).validation.value,
                _worth(judge, outputs, chosen.weights, number),
                tuple(agreement),
                seen[number] if number < len(seen) else None,
            )
        )
    return tuple(rows)


def _worth(
    judge: Labelled, outputs: Sequence[Outputs], weights: Sequence[float], number: int
) -> float | None:
    """The metric of an average of all members minus that without one."""
    if len(weights) != len(outputs) or len(outputs) < 2:
        return None
    rest = [0.0 if i == number else weight for i, weight in enumerate(weights)]
    if sum(rest) <= 0 or sum(weights) <= 0:
        return None
    whole, without = (
        judge.score((np.average([one[0] for one in outputs], axis=0, weights=w),)).value
        for w in (weights, rest)
    )
    return whole - without


def _rows_seen(folder: RunFolder) -> tuple[float, ...]:
    """For each member of a shipped cascade the share of rows that it sees; else nothing."""
    model = folder.load(folder.best)
    shares = getattr(model, "shares", None) if isinstance(model, CascadeModel) else None
    return tuple(float(share) for share in shares or ())
