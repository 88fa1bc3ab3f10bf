"""The given models: named, checked, profiled and scored; and the choice of the teacher."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras

from saikei.budget import Budget
from saikei.errors import FusionError, InputError, ModelError
from saikei.fusion import Average
from saikei.fusion.agreement import check_agreement
from saikei.fusion.members import Members
from saikei.fusion.multimodal.inputs import by_name
from saikei.graph import build, copy_model, read
from saikei.graph.finite import check_finite_weights
from saikei.graph.internals import flattened_layers
from saikei.graph.own_functions import own_objects, unsavable
from saikei.models import CascadeModel
from saikei.runs.candidate import Candidate, Cost
from saikei.runs.front import goodness
from saikei.runs.record import Decision
from saikei.scoring.labelled import Labelled, Outputs
from saikei.scoring.score import Score
from saikei.search.compose.sets import mean_of
from saikei.search.folder import RunFolder
from saikei.search.gauge import Gauge


@dataclass(frozen=True)
class Originals:
    """The given models with their costs and scores.

    Args:
        models: The models by name.
        candidates: The record of each model, in the same order.
        outputs: Outputs of each model on validation, by name.
        baseline: The record of the best one; shares of the budget refer to its costs.
    """

    models: Mapping[str, keras.Model] = field(repr=False)
    candidates: tuple[Candidate, ...]
    outputs: Mapping[str, Outputs] = field(repr=False)
    baseline: Candidate


@dataclass(frozen=True)
class Teacher:
    """The model that students are distilled from, and why it was chosen."""

    name: str
    model: keras.Model = field(repr=False)
    decision: Decision


def name_models(models: keras.Model | Sequence[keras.Model]) -> dict[str, keras.Model]:
    """The given models by their names in the records.

    Models with different inputs are copied so that each takes a dictionary of its own ones.

    Raises:
        InputError: If there are none, or one is not a Keras model, or is a cascade.
        FusionError: If they do not have the same outputs, or have different inputs without names.
    """
    given = list(models) if isinstance(models, (list, tuple)) else [models]
    if not given:
        raise InputError("There is no model to optimize: give one, or a list of them.")
    for model in given:
        if not isinstance(model, keras.Model):
            raise InputError(
                f"optimize got a {type(model).__name__} where it needs a keras.Model: load a file "
                "with keras.saving.load_model first."
            )
        if isinstance(model, CascadeModel):
            raise InputError(
                f"Model '{model.name}' is a cascade, whose exits would be lost when it is cut: "
                "optimize its members (.members), and make a Cascade of the results."
            )
    if len(given) == 1:
        return {"original": given[0]}
    named = enumerate(_with_alike_inputs(given), start=1)
    return {f"original-{number}": model for number, model in named}


def input_names(model: keras.Model) -> tuple[str, ...]:
    """The names of a model's inputs, if it takes a dictionary of them; empty for others."""
    inputs = getattr(model, "input", None)
    return tuple(sorted(inputs)) if isinstance(inputs, dict) else ()


def _with_alike_inputs(models: Sequence[keras.Model]) -> Sequence[keras.Model]:
    """The models as they are, or taking dictionaries of their inputs where these differ.

    Raises:
        FusionError: If they have different outputs, or different inputs without names.
    """
    members = Members.of(models)
    shown = [
        (type(graph.inputs), *(graph.spec(ref) for ref in graph.input_refs()))
        for graph in members.graphs
    ]
    if all(one == shown[0] for one in shown):
        members.check_alike()
        return models
    try:
        members = by_name(members)
    except FusionError as error:
        raise FusionError(f"The models read different inputs. {error}") from error
    members.check_alike()
    return [
        model if isinstance(getattr(model, "input", None), dict) else build(graph, compiled=True)
        for model, graph in zip(models, members.graphs, strict=True)
    ]


def custom_objects(models: Mapping[str, keras.Model]) -> dict[str, Any]:
    """Custom classes and functions of the given models, to load candidates with.

    Raises:
        ModelError: If a layer holds a function that cannot be saved in a file, or weights that
            are NaN or infinite.
    """
    found: dict[str, Any] = {}
    for name, model in models.items():
        graph = read(model)
        check_finite_weights(f"Model '{name}'", graph, ModelError)
        for operation in graph.operations.values():
            if (what := unsavable(operation.source)) is not None:
                raise ModelError(
                    f"Layer '{operation.name}' of model '{name}' holds a function ({what}) that "
                    "cannot be saved in a file, as a run needs: make it a named function (def), "
                    "made of keras.ops if possible."
                )
            found.update(own_objects(operation.source))
            classes = map(type, flattened_layers(operation.source))
            found.update({c.__name__: c for c in classes if not c.__module__.startswith("keras.")})
    return found


def measure_originals(
    models: Mapping[str, keras.Model],
    judge: Labelled,
    budget: Budget,
    folder: RunFolder,
    gauge: Gauge,
) -> Originals:
    """Profile and score the given models, or read the costs that an earlier session measured.

    Args:
        models: The models by name.
        judge: Scores outputs on the validation data.
        budget: Decides which models fit as they are; shares refer to the best one.
        folder: Folder of the run; it is only read.
        gauge: How costs are measured.

    Raises:
        FusionError: If a model has its classes in another order, or expects other preprocessing.
    """
    outputs = {name: judge.predict(model) for name, model in models.items()}
    if len(models) > 1:
        members = Members.of(list(models.values()))
        held = judge.x, members.outputs[0].pack([one.values for one in judge.labels])
        check_agreement(members, judge.tasks, judge.labels, list(outputs.values()), held)
    scores = {name: judge.score(out) for name, out in outputs.items()}
    best = max(models, key=lambda name: (goodness(scores[name]), -scores[name].loss))
    known = {name: folder.finished(name, _plan(name)) for name in models}
    # Measured times differ in each session: plans use shares of those of the first one.
    costs = {
        name: found.cost if (found := known[name]) else gauge.cost(model)
        for name, model in models.items()
    }
    candidates = {
        name: _candidate(name, costs[name], scores[name], budget.fits(costs[name], costs[best]))
        for name in models
    }
    return Originals(models, tuple(candidates.values()), outputs, candidates[best])


def store_originals(originals: Originals, folder: RunFolder) -> None:
    """Store the given models with their records."""
    for candidate in originals.candidates:
        if folder.finished(candidate.name, candidate.plan) is None:
            model = copy_model(originals.models[candidate.name])
            folder.save(candidate, model, originals.outputs[candidate.name])


def _plan(name: str) -> Mapping[str, str]:
    return {"given": name}


def _candidate(name: str, cost: Cost, score: Score, fits: bool) -> Candidate:
    return Candidate(
        name=name,
        kind="given" if fits else "original",
        family="given",
        parent=None,
        plan=_plan(name),
        recipe=None,
        members=(),
        weights=(),
        fits=fits,
        cost=cost,
        before=None,
        validation=score,
        training=None,
        layers=(),
    )


def choose_teacher(originals: Originals, judge: Labelled) -> Teacher:
    """The best original, or the average of all where that is better on validation."""
    best = originals.baseline.name
    if len(originals.models) == 1:
        reason = "It is the only model that was given."
        return Teacher(best, originals.models[best], Decision("teacher", best, reason))
    together = mean_of(list(originals.outputs.values()))
    gain = judge.difference(together, originals.outputs[best])
    better = gain.value if judge.score(together).greater_is_better else -gain.value
    figures = f"its metric differs from that of {best} by {gain.value:+.4f} on validation"
    if better > gain.standard_error:
        name = "average of the originals"
        model = Average()(list(originals.models.values()))
        return Teacher(
            name, model, Decision("teacher", name, f"{figures}, more than one standard error.")
        )
    reason = f"The average of all was no clear gain: {figures}."
    return Teacher(best, originals.models[best], Decision("teacher", best, reason))
