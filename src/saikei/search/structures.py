"""The library and the structures of each given model, and what of them takes part in the race."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain, zip_longest

import keras

from saikei.calibration.run import outputs_of
from saikei.calibration.samples import calibration_inputs
from saikei.codec import to_jsonable
from saikei.edits.base import read_with_sizes
from saikei.edits.options import Option, stitch
from saikei.errors import BudgetError, EditError, InputError
from saikei.runs.record import Decision, LibraryRecord
from saikei.search.context import RunContext
from saikei.search.events import Events
from saikei.search.library import Library, build_library, divergence
from saikei.search.propose import Measure, Proposal, Structure, check_reachable, propose
from saikei.search.race import Entry

# Rows that the divergence of a structure is measured on, and that it is refitted to.
_ROWS = 1_024
# What a structure's measured latency is multiplied by: measured again, it is another one.
LATENCY_MARGIN = 1.1
# The order in which structures of one share of the budget take part.
_FAMILIES = ("swapped", "knapsack", "depth", "uniform", "variant", "no depth", "as given")


@dataclass(frozen=True, eq=False)
class Structures:
    """The structures that may be trained, without any training.

    Args:
        libraries: The library of each given model.
        entries: What takes part in the race, the most promising first.
        records: Summaries of the libraries.
        decisions: Which models gave no structures, and why.
    """

    libraries: Mapping[str, Library] = field(repr=False)
    entries: tuple[Entry, ...]
    records: Mapping[str, LibraryRecord]
    decisions: tuple[Decision, ...]


def find_structures(context: RunContext, events: Events, uniform: bool = False) -> Structures:
    """Measure the options of each given model, and propose structures within the budget.

    Args:
        context: Models, data and budget of the run.
        events: Gets the number of measured options.
        uniform: Whether only structures of uniform shape are proposed.

    Raises:
        BudgetError: If no structure of any model keeps the budget.
    """
    libraries: dict[str, Library] = {}
    proposals: dict[str, tuple[Proposal, ...]] = {}
    records: dict[str, LibraryRecord] = {}
    refusals: dict[str, BudgetError | EditError | InputError] = {}
    for name, model in context.models.items():
        events.stage(f"measuring options of {name}")
        started = time.perf_counter()
        folder = context.folder.library(name)
        folder.mkdir(parents=True, exist_ok=True)
        try:
            check_reachable(
                model, context.structure_budgets[-1], context.calibration, context.methods.edits
            )
            library = build_library(
                model,
                context.calibration,
                context.validation,
                context.methods.edits,
                executor=context.executor,
                folder=folder,
                loss=context.losses,
                progress=lambda done, total: events.emit("measured", done=done, total=total),
            )
            seconds = time.perf_counter() - started
            events.stage(f"proposing structures of {name}")
            proposals[name] = _proposed(model, library, context, uniform)
        except (BudgetError, EditError, InputError) as error:
            refusals[name] = error
            continue
        libraries[name] = library
        records[name] = _record(library, proposals[name][0], seconds)
    if not proposals and not any(c.fits for c in context.originals.candidates):
        raise next(iter(refusals.values()))
    return Structures(
        libraries=libraries,
        entries=_entries(proposals, context),
        records=records,
        decisions=tuple(
            Decision(f"structures of {name}", "none", str(error))
            for name, error in refusals.items()
        ),
    )


def _proposed(
    model: keras.Model, library: Library, context: RunContext, uniform: bool
) -> tuple[Proposal, ...]:
    """What is proposed for each of the budgets for structures that can be reached.

    Raises:
        BudgetError: When not even the loosest can be reached.
    """
    *tighter, loosest = context.structure_budgets
    proposed = partial(
        propose,
        model,
        library,
        data=context.calibration,
        measure=_measure(model, context),
        uniform=uniform,
        slower=LATENCY_MARGIN,
    )
    found = []
    for budget in tighter:
        with suppress(BudgetError):
            found.append(proposed(budget))
    return (*found, proposed(loosest))


def _measure(model: keras.Model, context: RunContext) -> Measure:
    """Gives the divergence of stitched options from a model, on held-out rows."""
    graph = read_with_sizes(model, context.calibration)
    judge = context.judge.take(slice(_ROWS))
    data = keras.tree.map_structure(lambda leaf: leaf[:_ROWS], context.calibration[:2])
    inputs = calibration_inputs(graph, judge.x, len(judge))
    original = outputs_of(graph, inputs)

    def measure(options: tuple[Option, ...]) -> float:
        _, edited = stitch(graph, options, data)
        return divergence(outputs_of(edited, inputs), original, judge.tasks, judge.labels)[0]

    return measure


def _record(library: Library, proposal: Proposal, seconds: float) -> LibraryRecord:
    found = proposal.agreement
    return LibraryRecord(
        options=len(library.entries),
        rows=library.rows,
        unit=library.unit,
        seconds=seconds,
        structures=()
        if found is None
        else tuple(zip(found.reweighted, found.measured, strict=True)),
        rank_correlation=None if found is None else _finite(found.reweighted_correlation),
    )


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _entries(proposals: Mapping[str, Sequence[Proposal]], context: RunContext) -> tuple[Entry, ...]:
    """Kept and fresh weights of the structures; models, and the budgets of each, take turns."""
    each = [
        _in_turns([_of_one(name, one.structures, context) for one in several])
        for name, several in proposals.items()
    ]
    return tuple(_in_turns(each))


def _in_turns(lists: Sequence[Sequence[Entry]]) -> list[Entry]:
    """The first of each list, then the second of each, and so on; equal ones once."""
    found: list[Entry] = []
    for one in chain.from_iterable(zip_longest(*lists)):
        if one is not None and one not in found:
            found.append(one)
    return found


def _of_one(parent: str, structures: Sequence[Structure], context: RunContext) -> list[Entry]:
    # Where nothing is to be saved, the given structure is trained on after the race.
    barred = () if context.saves else ("as given",)
    usable = [s for s in structures if s.family in _FAMILIES and s.family not in barred]
    ordered = sorted(usable, key=lambda s: (_FAMILIES.index(s.family), s.name))
    first: dict[float, Structure] = {}
    for one in ordered:
        first.setdefault(one.share, one)
    best = [first[share] for share in sorted(first, reverse=True)]
    rest = sorted(
        (s for s in ordered if s not in best), key=lambda s: (-s.share, s.family != "uniform")
    )
    # The best at the whole budget, in one step and in two, then other shapes, and shares of which
    # several fit, in turns. Of the shapes the uniform one comes first: where the others replace
    # layers, it is what trains like the original. Fresh weights need more epochs than the first
    # rungs have.
    mixed = chain.from_iterable(zip_longest(rest, best[1:]))
    kept = [_entry(parent, one, context) for one in best]
    others = [_entry(parent, one, context) for one in mixed if one is not None]
    fresh = [replace(one, family="fresh", weights="fresh") for one in kept]
    return [*kept[:1], *_in_steps(parent, structures, context), *others, *fresh]


def _in_steps(parent: str, structures: Sequence[Structure], context: RunContext) -> list[Entry]:
    """The best structure that is too small for one step: a larger one is trained first."""
    named = {one.name: one for one in structures}
    found = next((one for one in structures if one.via is not None and one.share == 1.0), None)
    if found is None or found.via is None or found.step is None:
        return []
    via = named[found.via].recipe
    if via is None:
        return []
    return [
        replace(
            _entry(parent, found, context),
            family="in steps",
            via=to_jsonable(via.to_dict()),
            step=to_jsonable(found.step.to_dict()),
        )
    ]


def _entry(parent: str, structure: Structure, context: RunContext) -> Entry:
    recipe = None if structure.recipe is None else to_jsonable(structure.recipe.to_dict())
    return Entry(structure.family, parent, recipe, "kept", context.teacher_name)
