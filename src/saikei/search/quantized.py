"""int8 versions of candidates: files for LiteRT, scored in its own interpreter."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Any

import keras
import numpy as np

from saikei.errors import InputError, WorkError
from saikei.exporting import Int8File, check_int8_available, export_int8
from saikei.runs.candidate import Candidate, Cost
from saikei.runs.front import goodness
from saikei.runs.record import Decision
from saikei.scoring.labelled import Outputs
from saikei.search.context import RunContext
from saikei.search.folder import INT8_FILE
from saikei.writing import draft_folder

# Candidates that get an int8 version, the best first.
MOST = 3
_TIMES = 5


@dataclass(frozen=True, eq=False)
class Int8Candidates:
    """The int8 versions of a run.

    Args:
        candidates: Their records.
        outputs: Their outputs on validation by name, as LiteRT gives them.
        decisions: Which could not be made, and why.
        note: Why none was tried; empty if some were.
    """

    candidates: tuple[Candidate, ...]
    outputs: Mapping[str, Outputs] = field(repr=False)
    decisions: tuple[Decision, ...]
    note: str = ""


def quantize_candidates(
    candidates: Sequence[Candidate],
    context: RunContext,
    load: Callable[[str], keras.Model],
) -> Int8Candidates:
    """Make int8 versions of the best candidates, whether these keep the budget themselves or not.

    Args:
        candidates: All candidates so far.
        context: Data, budget and folder of the run.
        load: Loads a candidate by its name.
    """
    if not {"bytes", "latency"} & set(context.budget.given()):
        return Int8Candidates(
            (), {}, (), "int8 saves bytes and time, and the budget limits neither."
        )
    try:
        check_int8_available()
    except InputError as error:
        return Int8Candidates((), {}, (), str(error))
    ordered = sorted(candidates, key=lambda c: (-goodness(c.validation), c.cost.bytes, c.name))
    made: dict[str, Candidate] = {}
    outputs: dict[str, Outputs] = {}
    decisions: list[Decision] = []
    for base in ordered:
        if len(made) == MOST:
            break
        name = f"{base.name}-int8"
        try:
            candidate = _finished_or_made(name, base, context, load)
        except WorkError as error:
            decisions.append(Decision(name, "left out", str(error)))
            continue
        if candidate is not None:
            made[name], outputs[name] = candidate, context.folder.outputs(name)
    return Int8Candidates(tuple(made.values()), outputs, tuple(decisions))


def _finished_or_made(
    name: str, base: Candidate, context: RunContext, load: Callable[[str], keras.Model]
) -> Candidate | None:
    """The int8 version of a candidate; `None` if it does not keep the budget."""
    plan = {"quantize": base.name, "like": base.name}
    known = context.folder.finished(name, plan)
    if known is not None:
        return known
    model = load(base.name)
    with draft_folder(context.folder.path) as folder:
        file = export_int8(model, folder / INT8_FILE, context.calibration[0])
        outputs = tuple(file.run(context.judge.x))
        cost = replace(base.cost, bytes=file.bytes, **_latency(file, base.cost, context))
        if not context.fits(cost):
            return None
        candidate = Candidate(
            name=name,
            kind="quantized",
            family=base.name,
            parent=None,
            plan=plan,
            recipe=None,
            members=(base.name,),
            weights=(),
            fits=True,
            cost=cost,
            before=None,
            validation=context.judge.score(outputs),
            training=None,
            layers=(),
        )
        context.folder.save(candidate, model, outputs, files=[file.path])
    return candidate


def _latency(file: Int8File, cost: Cost, context: RunContext) -> dict[str, Any]:
    """The measured time of a batch in LiteRT's interpreter, where latencies are measured."""
    if cost.latency is None:
        return {}
    batch = keras.tree.map_structure(
        lambda one: np.asarray(one)[: cost.batch_size], context.judge.x
    )
    file.run(batch)
    return {"latency": median(_timed(file, batch) for _ in range(_TIMES))}


def _timed(file: Int8File, batch: Any) -> float:
    started = time.perf_counter()
    file.run(batch)
    return 1000 * (time.perf_counter() - started)
