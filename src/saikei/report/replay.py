"""A Python script that makes the shipped model again from the original."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from saikei.runs.candidate import ORIGINALS, Candidate
from saikei.runs.record import Run


def replay(run: Run) -> str:
    """The script, which has to be run in the folder of the run.

    It uses the given models as `original` or `original_1`, `original_2`, …, and the data as
    `train` and `validation`.

    Args:
        run: A finished run.
    """
    chosen = run.candidate(run.chosen)
    members = [run.candidate(name) for name in chosen.members]
    shipped = members or [chosen]
    if not any(c.recipe for c in shipped):
        return 'import keras\n\nmodel = keras.saving.load_model("best.keras")'
    lines = ["from pathlib import Path", "", "import saikei as sk"]
    if any(c.kind == "fresh" for c in shipped):
        lines.append("from saikei.graph import fresh_model")
    originals = _variables(run)
    lines += ["", *_teacher_lines(originals, shipped)]
    names = [f"member_{number}" for number in range(1, len(members) + 1)] or ["model"]
    for name, candidate in zip(names, shipped, strict=True):
        lines += _candidate_lines(run, originals, candidate, name)
    if members:
        lines.append(f"model = {_average(chosen)}([{', '.join(names)}])")
    return "\n".join(lines)


def _variables(run: Run) -> dict[str, str]:
    """Variable names of the given models; names from a record appear in quotes only."""
    given = [c.name for c in run.candidates if c.kind in ORIGINALS]
    if len(given) == 1:
        return {given[0]: "original"}
    return {name: f"original_{number}" for number, name in enumerate(given, start=1)}


def _teacher_lines(originals: Mapping[str, str], shipped: Sequence[Candidate]) -> list[str]:
    """The line that makes the teacher, if it was the average of the originals."""
    teachers = {c.training.teacher for c in shipped if c.training and c.training.teacher}
    if teachers <= set(originals):
        return []
    return [f"teacher = sk.Average()([{', '.join(originals.values())}])"]


def _candidate_lines(
    run: Run, originals: Mapping[str, str], candidate: Candidate, name: str
) -> list[str]:
    if candidate.recipe is None:
        return [f"{name} = {originals[candidate.name]}"]
    path = f"candidates/{candidate.name}/recipe.json"
    parent = originals[candidate.parent or ""]
    # Fresh weights need the structure only; otherwise remaining weights are refitted to data.
    data = "" if candidate.kind == "fresh" else ", train"
    lines = [
        f"recipe = sk.Recipe.from_json(Path({_quoted(path)}).read_text())",
        f"{name} = recipe({parent}{data})",
    ]
    if candidate.unimproved:
        return [*lines, "# Training did not improve it: the weights are those after the cut."]
    if candidate.kind == "fresh":
        lines.append(f"{name} = fresh_model({name}, seed={candidate.plan['seed']!r})")
    return lines + _training_lines(run, originals, candidate, name)


def _training_lines(
    run: Run, originals: Mapping[str, str], candidate: Candidate, name: str
) -> list[str]:
    training = candidate.training
    assert training is not None, f"{candidate.name} was cut and not trained"
    arguments = [f"epochs={training.epochs}"]
    if run.settings.batch_size is not None:
        arguments.append(f"batch_size={run.settings.batch_size}")
    # All digits: a rounded learning rate would be another training.
    arguments += [f"learning_rate={training.learning_rate!r}", f"seed={candidate.plan['seed']!r}"]
    if training.teacher is None:
        return [f"sk.fit({name}, train, validation, {', '.join(arguments)})"]
    teacher = originals.get(training.teacher, "teacher")
    soft = f"temperature={training.temperature!r}, alpha={training.alpha!r}"
    return [
        f"sk.distill({name}, {teacher}, train, validation, {soft},",
        f"           {', '.join(arguments)})",
    ]


def _average(chosen: Candidate) -> str:
    if chosen.plan.get("weights") != "learn":
        return "sk.Average()"
    return f"sk.Average(weights={tuple(chosen.weights)!r})"


def _quoted(text: str) -> str:
    """Text as a Python literal, in double quotes if possible."""
    quoted = repr(text)
    return f'"{text}"' if quoted == f"'{text}'" and '"' not in text else quoted
