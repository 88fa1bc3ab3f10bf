"""Ensembles as candidates: the best of each fusion, built, counted and stored."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import keras

from saikei.codec import to_jsonable
from saikei.errors import BudgetError
from saikei.runs.candidate import Candidate
from saikei.runs.record import Decision
from saikei.search.compose import Composition, Ensemble, build
from saikei.search.context import RunContext

# Ensembles of one fusion that are built, the best first, until one keeps the budget.
TRIED = 2


@dataclass(frozen=True, eq=False)
class FusedCandidates:
    """The fused models of a run.

    Args:
        candidates: Their records.
        ensembles: The ensembles that they were built of, by name.
        decisions: What was left out, and how many sets were considered.
    """

    candidates: tuple[Candidate, ...]
    ensembles: Mapping[str, Ensemble] = field(repr=False)
    decisions: tuple[Decision, ...]


def fuse_candidates(
    composition: Composition, context: RunContext, load: Callable[[str], keras.Model]
) -> FusedCandidates:
    """Build the best ensemble of each fusion, and store it.

    Args:
        composition: The ensembles that were found on stored predictions.
        context: Budget and folder of the run.
        load: Loads a candidate by its name.
    """
    made: dict[str, Candidate] = {}
    chosen: dict[str, Ensemble] = {}
    notes = [_considered(composition)]
    for method in dict.fromkeys(ensemble.method for ensemble in composition.ensembles):
        if method == "single":
            continue
        for number, ensemble in enumerate(_best_of(composition, method), start=1):
            name = f"{method}-{number}"
            try:
                made[name] = _finished_or_built(name, ensemble, context, load)
            except BudgetError as error:
                notes.append(Decision(name, "left out", str(error)))
                continue
            chosen[name] = ensemble
            break
    refused = [Decision(m, "not possible", why) for m, why in composition.refused.items()]
    return FusedCandidates(tuple(made.values()), chosen, (*notes, *refused))


def _best_of(composition: Composition, method: str) -> list[Ensemble]:
    return [ensemble for ensemble in composition.ensembles if ensemble.method == method][:TRIED]


def _considered(composition: Composition) -> Decision:
    counts = {m: n for m, n in composition.considered.items() if m != "single"}
    total = sum(counts.values())
    each = ", ".join(f"{count:,} for {method}" for method, count in counts.items())
    return Decision(
        "fusions",
        f"{total:,} set{'s' * (total != 1)} of candidates",
        f"They were scored on stored predictions ({each}); what was fitted is scored out of fold."
        if total
        else "No two candidates keep the budget together.",
    )


def _finished_or_built(
    name: str, ensemble: Ensemble, context: RunContext, load: Callable[[str], keras.Model]
) -> Candidate:
    plan = _plan(ensemble)
    known = context.folder.finished(name, plan)
    if known is not None:
        return known
    built = build(
        ensemble, load, context.gauge.cost, context.budget, context.whole, context.judge.x
    )
    candidate = Candidate(
        name=name,
        kind="fused",
        family=ensemble.method,
        parent=None,
        plan=plan,
        recipe=None,
        members=ensemble.members,
        weights=ensemble.weights,
        fits=True,
        cost=built.cost,
        before=None,
        validation=ensemble.score,
        training=None,
        layers=(),
    )
    context.folder.save(candidate, built.model, ensemble.outputs)
    return candidate


def _plan(ensemble: Ensemble) -> dict[str, Any]:
    fusion = None if ensemble.fusion is None else ensemble.fusion.to_dict()
    described = {k: v for k, v in ensemble.to_dict().items() if k != "score"}
    made: dict[str, Any] = to_jsonable(
        {**described, "fusion": type(ensemble.fusion).__name__, "arguments": fusion}
        | ({"multimodal": True} if ensemble.multimodal else {})
    )
    return made
