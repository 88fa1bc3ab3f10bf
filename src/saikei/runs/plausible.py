"""Whether the record of a run can be one: the types are right, but the values may be anything."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from saikei.errors import InputError

if TYPE_CHECKING:
    from saikei.runs.record import Candidate, Cost, Run

COST_AXES = ("macs", "params", "latency")
ORIGINALS = ("original", "given")
# They are names of folders too.
_NAME = re.compile(r"\w[\w.-]*")


def check_run(run: Run) -> None:
    """Refuse a record that no run leaves behind.

    Args:
        run: read from a file.

    Raises:
        InputError: naming the value.
    """
    for fault in _faults(run):
        raise InputError(
            f"The run's record is damaged or was changed by hand: {fault}. Run the search again "
            "into a new folder."
        )


def _faults(run: Run) -> Iterator[str]:
    names = [candidate.name for candidate in run.candidates]
    for name in names:
        if not _NAME.fullmatch(name):
            yield f"a candidate is called {name!r}"
    if len(set(names)) < len(names):
        yield "two candidates have one name"
    if run.cost_axis not in COST_AXES:
        yield f"its cost axis is {run.cost_axis!r}, and not one of {', '.join(COST_AXES)}"
    for name in (run.baseline, run.chosen, *run.front):
        if name not in names:
            yield f"there is no candidate {name!r}"
    originals = {c.name for c in run.candidates if c.kind in ORIGINALS}
    if run.baseline not in originals:
        yield f"{run.baseline!r} is no original"
    for candidate in run.candidates:
        for fault in _faults_of(candidate, set(names), originals, run.cost_axis):
            yield f"of {candidate.name!r}, {fault}"


def _faults_of(
    candidate: Candidate, names: set[str], originals: set[str], axis: str
) -> Iterator[str]:
    yield from _faults_of_cost(candidate.cost, axis)
    yield from _faults_of_members(candidate, names)
    if candidate.recipe is None and candidate.kind not in (*ORIGINALS, "average"):
        yield "there is no recipe"
    if candidate.recipe is not None and candidate.parent not in originals:
        yield f"the parent is {candidate.parent!r}, which is no original"
    if candidate.recipe is not None and not isinstance(candidate.plan.get("seed"), int):
        yield "the plan has no seed"
    training = candidate.training
    if training is not None and training.teacher is not None and training.temperature is None:
        yield "there is a teacher but no temperature"
    for layer in candidate.layers:
        if layer.before < 1 or layer.after < 0:
            yield f"the channels of layer {layer.name!r} are {layer.before} and {layer.after}"


def _faults_of_members(candidate: Candidate, names: set[str]) -> Iterator[str]:
    if candidate.kind == "average" and not candidate.members:
        yield "there are no members"
    if len(candidate.members) != len(candidate.weights):
        yield f"there are {len(candidate.weights)} weights for {len(candidate.members)} members"
    for member in candidate.members:
        if member not in names - {candidate.name}:
            yield f"there is no member {member!r}"


def _faults_of_cost(cost: Cost, axis: str) -> Iterator[str]:
    sizes = (cost.params, cost.macs, cost.activation_bytes, cost.latency or 0)
    if min(sizes) < 0:
        yield f"a cost is {min(sizes)}"
    if axis == "latency" and cost.latency is None:
        yield "the latency was not measured"
