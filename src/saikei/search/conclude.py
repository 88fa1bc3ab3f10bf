"""The end of a run: choose a model, score it on the test set once, and write the record."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import keras

from saikei import report
from saikei.codec import to_jsonable
from saikei.exporting.runtimes import open_litert
from saikei.hub import as_task, family_of
from saikei.reading import holds_json
from saikei.runs.candidate import Candidate
from saikei.runs.details import Details
from saikei.runs.front import cost_axis, pareto_front
from saikei.runs.record import CLASS_OF_RESULT, Decision, FinalTest, Run, RunSettings
from saikei.scoring.labelled import Labelled, Outputs
from saikei.search.comparisons import compare_choices, weight_decisions
from saikei.search.context import RunContext
from saikei.search.details import details_of, write_details
from saikei.search.folder import RunFolder, compiled_like
from saikei.search.selection import choose_candidate, harm
from saikei.writing import write_text


@dataclass(frozen=True)
class Session:
    """The data, fingerprint and start of a run.

    Args:
        samples: Number of samples of each part of the data.
        fingerprint: Hashes of models, data and settings, by name.
        started: Time of the start, ISO 8601 in UTC.
        noted: What was decided before the search began.
        classes: Names of the classes; empty if they are unknown.
        given: The models as they were given, tasks of KerasHub with their preprocessors.
    """

    samples: Mapping[str, int]
    fingerprint: Mapping[str, str]
    started: str
    noted: tuple[Decision, ...]
    classes: tuple[str, ...] = ()
    given: tuple[keras.Model, ...] = field(default=(), repr=False)

    @classmethod
    def begun(
        cls,
        samples: Mapping[str, int],
        fingerprint: Mapping[str, str],
        noted: Decision | None,
        classes: Sequence[str] | None = None,
        given: Sequence[keras.Model] = (),
    ) -> Session:
        """A session that begins now.

        Args:
            samples: Number of samples of each part of the data.
            fingerprint: Hashes of models, data and settings, by name.
            noted: What was decided about labels; `None` for nothing.
            classes: Names of the classes; `None` if they are unknown.
            given: The models as they were given.
        """
        started = datetime.now(UTC).isoformat(timespec="seconds")
        decisions = () if noted is None else (noted,)
        return cls(samples, fingerprint, started, decisions, tuple(classes or ()), tuple(given))


@dataclass(frozen=True)
class SearchResults:
    """Everything that the search has produced.

    Args:
        candidates: All candidates, originals first.
        outputs: Outputs of each candidate on validation, by name.
        decisions: Decisions so far.
        baseline: The original that everything is compared to.
    """

    candidates: tuple[Candidate, ...]
    outputs: Mapping[str, Outputs] = field(repr=False)
    decisions: tuple[Decision, ...]
    baseline: Candidate


def conclude(
    results: SearchResults,
    context: RunContext,
    session: Session,
    settings: RunSettings,
    test: Labelled | None,
) -> Run:
    """Choose the model to ship, and score it and the original on the test set.

    Args:
        results: Candidates to choose from.
        context: Models, data and budget of the run.
        session: Data and start of the run.
        settings: The arguments of the run.
        test: Scores outputs on the test data; `None` if there is none.

    Returns:
        The record of the run, not written yet, without its duration and the accounts of methods,
        epochs and libraries.
    """
    axis = cost_axis(context.budget)
    choice = choose_candidate(
        results.candidates, results.outputs, context.judge, axis, results.baseline
    )
    chosen = choice.chosen
    context.folder.promote(chosen.name, [*context.models.values()])
    comparisons = compare_choices(
        results.candidates, results.outputs, context.judge, chosen, results.baseline
    )
    return Run(
        task=" and ".join(task.kind for task in context.judge.tasks),
        baseline=results.baseline.name,
        chosen=chosen.name,
        candidates=results.candidates,
        front=tuple(c.name for c in pareto_front(results.candidates, axis)),
        cost_axis=axis,
        comparisons=comparisons,
        decisions=(
            *harm(chosen, results.baseline),
            *results.decisions,
            *weight_decisions(comparisons),
            choice.decision,
            *_shipped_as_task(context, session.given),
        ),
        methods=(),
        effort=(),
        library={},
        test=None if test is None else _look_at_test(results.baseline, context, test),
        settings=settings,
        samples=session.samples,
        fingerprint=session.fingerprint,
        versions=_versions(),
        started=session.started,
        seconds=0.0,
    )


def _shipped_as_task(context: RunContext, given: Sequence[keras.Model]) -> tuple[Decision, ...]:
    """Write `best.keras` as a task of KerasHub, where the given model is one and it can be one."""
    if not any(family_of(model) is not None for model in given):
        return ()
    folder = context.folder
    shipped = compiled_like([*context.models.values()], folder.load(folder.best))
    made = as_task(shipped, given)
    assert made is not None
    if made.of_family:
        folder.replace_best(made.model)
    return (Decision(CLASS_OF_RESULT, made.kind, made.reason),)


def write_run(run: Run, context: RunContext, classes: Sequence[str] = ()) -> None:
    """Write the front, the report and, last, the record, which marks the run as finished.

    Args:
        run: The finished run.
        context: Its folder and validation data.
        classes: Names of the classes; empty if they are unknown.
    """
    details = write_details(run, context.folder, context.judge, classes)
    complete_run(run, context.folder, details)
    write_text(context.folder.record, run.to_json())


def complete_run(run: Run, folder: RunFolder, details: Details | None = None) -> None:
    """Write the files that follow from the record, if they are missing or damaged.

    Args:
        run: A finished run.
        folder: Its folder.
        details: What the report shows besides; the files are then written in any case.
    """
    front = [to_jsonable(run.candidate(name)) for name in run.front]
    path, page = folder.path / "front.json", folder.path / "report.html"
    if details is not None or not holds_json(path, front):
        write_text(path, json.dumps(front, indent=1))
    if details is not None or not page.is_file():
        report.write_html(run, page, details_of(run, folder) if details is None else details)


def _look_at_test(baseline: Candidate, context: RunContext, test: Labelled) -> FinalTest:
    before = test.predict(context.models[baseline.name])
    shipped = context.folder.load(context.folder.best)
    int8 = context.folder.best_int8
    # What ships is scored as it runs.
    after = tuple(open_litert(int8, shipped)(test.x)) if int8.is_file() else test.predict(shipped)
    return FinalTest(test.score(before), test.score(after), test.difference(after, before))


def _versions() -> dict[str, str]:
    backend = keras.backend.backend()
    found = {"python": platform.python_version(), "keras": keras.__version__}
    found[f"{backend} (backend)"] = str(sys.modules[backend].__version__)
    for name in ("numpy", "optuna"):
        found[name] = importlib.metadata.version(name)
    try:
        found["saikei"] = importlib.metadata.version("saikei")
    except importlib.metadata.PackageNotFoundError:
        found["saikei"] = "not installed, run from its source"
    return found
