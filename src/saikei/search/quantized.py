"""int8 versions of candidates: by Keras, and as files for LiteRT that its interpreter scores."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import keras
import numpy as np

from saikei.edits import Quantize
from saikei.errors import EditError, InputError, WorkError
from saikei.exporting import Int8File, export_int8
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
        decisions: Which could not be made, and why.
        note: Why none was tried; empty if some were.
    """

    candidates: tuple[Candidate, ...]
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
        return Int8Candidates((), (), "int8 saves bytes and time, and the budget limits neither.")
    ordered = sorted(candidates, key=lambda c: (-goodness(c.validation), c.cost.bytes, c.name))
    made: list[Candidate] = []
    decisions: list[Decision] = []
    for base in ordered[:MOST]:
        for by, make in (("keras", _by_keras), ("litert", _by_litert)):
            name = f"{base.name}-int8-{by}"
            try:
                candidate = _finished_or_made(name, base, by, make, context, load)
            except (EditError, InputError, WorkError) as error:
                decisions.append(Decision(name, "left out", str(error)))
                continue
            if candidate is not None:
                made.append(candidate)
    return Int8Candidates(tuple(made), tuple(decisions))


@dataclass(frozen=True)
class _Made:
    """An int8 version that was made: a Keras model, or its float model and a file for LiteRT."""

    model: keras.Model
    outputs: Outputs
    cost: Cost
    files: tuple[Path, ...] = ()


_Make = Callable[[keras.Model, Cost, RunContext, Path], _Made]


def _finished_or_made(
    name: str,
    base: Candidate,
    by: str,
    make: _Make,
    context: RunContext,
    load: Callable[[str], keras.Model],
) -> Candidate | None:
    """The int8 version of a candidate; `None` if it does not keep the budget."""
    plan = {"quantize": base.name, "by": by, "like": base.name}
    known = context.folder.finished(name, plan)
    if known is not None:
        return known
    with draft_folder(context.folder.path) as folder:
        made = make(load(base.name), base.cost, context, folder)
        if not context.fits(made.cost):
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
            cost=made.cost,
            before=None,
            validation=context.judge.score(made.outputs),
            training=None,
            layers=(),
        )
        context.folder.save(candidate, made.model, made.outputs, files=made.files)
    return candidate


def _by_keras(model: keras.Model, cost: Cost, context: RunContext, folder: Path) -> _Made:  # noqa: ARG001
    """Dense layers and tables in int8, by Keras; the result is an ordinary Keras model."""
    small = Quantize()(model)
    return _Made(small, context.judge.predict(small), context.gauge.cost(small))


def _by_litert(model: keras.Model, cost: Cost, context: RunContext, folder: Path) -> _Made:
    """A file for LiteRT with all weights and activations in int8, run by LiteRT."""
    file = export_int8(model, folder / INT8_FILE, context.calibration[0])
    outputs = tuple(file.run(context.judge.x))
    cost = replace(cost, bytes=file.bytes, **_latency(file, cost, context))
    return _Made(model, outputs, cost, (file.path,))


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
