"""A Python script that makes the shipped model again from the original."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from saikei.runs.candidate import ORIGINALS, Candidate
from saikei.runs.record import Run

# Fusions that are made again by their arguments and a fit; all others are averages.
_FUSIONS = ("Boost", "Cascade", "Multimodal", "Soup", "Stack")


def replay(run: Run) -> str:
    """The script, which has to be run in the folder of the run.

    It uses the given models as `original` or `original_1`, `original_2`, …, and the data as
    `train` and `validation`.

    Args:
        run: A finished run.
    """
    chosen = run.candidate(run.chosen)
    made = list(_in_order(run, chosen))
    if not any(c.training or c.recipe for c in made):
        return 'import keras\n\nmodel = keras.saving.load_model("best.keras")'
    variables = _variables(run, made)
    lines = ["from pathlib import Path", "", "import saikei as sk"]
    lines += _imports(made)
    lines.append("")
    if any(_average_teaches(run, c) for c in made):
        originals = ", ".join(variables[c.name] for c in run.candidates if c.kind in ORIGINALS)
        lines.append(f"teacher = sk.Average()([{originals}])")
    for candidate in made:
        lines += _lines(candidate, variables)
    return "\n".join(lines)


def _in_order(run: Run, candidate: Candidate) -> Iterator[Candidate]:
    """A candidate after all that it is made of, each once."""
    seen: set[str] = set()

    def walk(one: Candidate) -> Iterator[Candidate]:
        if one.name in seen or one.kind in ORIGINALS:
            return
        seen.add(one.name)
        names = {c.name for c in run.candidates}
        teacher = one.training.teacher if one.training else None
        parent = one.parent if one.parent in names else None
        for needed in filter(None, (parent, *one.members, teacher if teacher in names else None)):
            yield from walk(run.candidate(needed))
        yield one

    yield from walk(candidate)


def _variables(run: Run, made: Sequence[Candidate]) -> dict[str, str]:
    """Variable names of all models; names from a record appear in quotes only."""
    given = [c.name for c in run.candidates if c.kind in ORIGINALS]
    several = len(given) > 1
    named = {n: f"original_{i}" if several else "original" for i, n in enumerate(given, start=1)}
    inner = [c.name for c in made if c.name != run.chosen]
    return {
        **named,
        **{name: f"member_{number}" for number, name in enumerate(inner, start=1)},
        **({} if run.chosen in named else {run.chosen: "model"}),
    }


def _imports(made: Sequence[Candidate]) -> list[str]:
    lines = []
    if any(c.training for c in made):
        lines.append("from saikei.distilling import train_part")
    if any(c.kind == "quantized" and c.plan.get("by") == "litert" for c in made):
        lines.append("from saikei.exporting import export_int8")
    trained = [c for c in made if c.training]
    names = ["copy_model"] if any(c.recipe is None for c in trained) else []
    names += ["fresh_model"] if any(c.kind == "fresh" for c in made) else []
    lines += [f"from saikei.graph import {', '.join(names)}"] if names else []
    return [*lines, "from saikei.training import TrainingSettings"] if trained else lines


def _average_teaches(run: Run, candidate: Candidate) -> bool:
    names = {c.name for c in run.candidates}
    teacher = candidate.training.teacher if candidate.training else None
    return teacher is not None and teacher not in names


def _lines(candidate: Candidate, variables: Mapping[str, str]) -> list[str]:
    name = variables[candidate.name]
    members = [variables[member] for member in candidate.members]
    if candidate.kind == "quantized" and candidate.plan.get("by") == "keras":
        return [f"{name} = sk.Quantize()({members[0]})"]
    if candidate.kind == "quantized":
        return [f'{name} = export_int8({members[0]}, "model-int8.tflite", train[0])']
    if candidate.kind == "fused":
        return [f"{name} = {_fusion(candidate)}([{', '.join(members)}]{_fitted_to(candidate)})"]
    parent = variables[candidate.parent or ""]
    lines = _structure(candidate, name, parent)
    if candidate.kind == "fresh":
        lines.append(f"{name} = fresh_model({name}, seed={candidate.plan['seed']!r})")
    elif candidate.unimproved:
        return [*lines, "# Training did not improve it: the weights are those after the cut."]
    return lines + _training(candidate, name, variables)


def _structure(candidate: Candidate, name: str, parent: str) -> list[str]:
    if candidate.recipe is None:
        return [f"{name} = copy_model({parent})"]
    path = f"candidates/{candidate.name}/recipe.json"
    # Fresh weights need the structure only; otherwise remaining weights are refitted to data.
    data = "" if candidate.kind == "fresh" else ", train"
    return [
        f"recipe = sk.Recipe.from_json(Path({_quoted(path)}).read_text())",
        f"{name} = recipe({parent}{data})",
    ]


def _training(candidate: Candidate, name: str, variables: Mapping[str, str]) -> list[str]:
    training = candidate.training
    assert training is not None, f"{candidate.name} was changed and not trained"
    settings = {k: v for k, v in _settings(candidate).items() if k != "learning_rate"}
    # All digits: a rounded learning rate would be another training.
    arguments = [f"learning_rate={training.learning_rate!r}"]
    arguments += [f"{key}={value!r}" for key, value in settings.items()]
    teacher = "None"
    if training.teacher is not None:
        teacher = variables.get(training.teacher, "teacher")
    return [
        f"settings = TrainingSettings({', '.join(arguments)})",
        f"train_part({name}, {teacher}, train, validation, settings,",
        f"           until={training.epochs}, total={training.total}, "
        f"seed={candidate.plan['seed']!r})",
    ]


def _settings(candidate: Candidate) -> Mapping[str, Any]:
    found = candidate.plan.get("settings", {})
    settings = found if isinstance(found, Mapping) else {}
    # Names of a record that was changed by hand must not become code.
    return {name: value for name, value in settings.items() if name.isidentifier()}


def _fusion(candidate: Candidate) -> str:
    kind = str(candidate.plan.get("fusion", "Average"))
    if kind not in _FUSIONS:
        equal = len(set(candidate.weights)) < 2
        return "sk.Average()" if equal else f"sk.Average(weights={tuple(candidate.weights)!r})"
    arguments = candidate.plan.get("arguments") or {}
    return f"sk.{kind}.from_dict({dict(arguments)!r})"


def _fitted_to(candidate: Candidate) -> str:
    """Fusions with weights of their own are fitted to validation, as in the run; Boost trains."""
    if candidate.plan.get("fusion") == "Boost":
        return ", train"
    return ", validation" if candidate.plan.get("fusion") in _FUSIONS else ""


def _quoted(text: str) -> str:
    """Text as a Python literal, in double quotes if possible."""
    quoted = repr(text)
    return f'"{text}"' if quoted == f"'{text}'" and '"' not in text else quoted
