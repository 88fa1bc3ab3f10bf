"""The replay is Python that names what it needs; that it works is shown on a real search."""

from __future__ import annotations

import ast
from dataclasses import replace

import pytest

from saikei.report.replay import replay
from saikei.runs.record import Run
from tests.report.sample import sample_run


def with_teacher(run: Run, teacher: str) -> Run:
    return replace(
        run,
        candidates=tuple(
            replace(c, training=c.training and replace(c.training, teacher=teacher))
            for c in run.candidates
        ),
    )


def test_a_pruned_model_is_cut_and_distilled() -> None:
    assert replay(sample_run()).splitlines() == [
        "from pathlib import Path",
        "",
        "import saikei as sk",
        "from saikei.distilling import train_part",
        "from saikei.training import TrainingSettings",
        "",
        'recipe = sk.Recipe.from_json(Path("candidates/a1-pruned/recipe.json").read_text())',
        "model = recipe(original, train)",
        "settings = TrainingSettings(learning_rate=0.001, batch_size=32)",
        "train_part(model, original, train, validation, settings,",
        "           until=20, total=20, seed=7)",
    ]


def test_an_average_makes_its_members_first() -> None:
    text = replay(replace(sample_run(), chosen="average-1"))
    ast.parse(text)
    assert "from saikei.graph import fresh_model" in text
    assert "member_2 = fresh_model(member_2, seed=7)" in text
    assert text.endswith("model = sk.Average()([member_1, member_2])")


def test_learned_weights_are_given_in_full() -> None:
    run = sample_run()
    learned = replace(run.candidate("average-1"), plan={"weights": "learn"}, weights=(1 / 3, 2 / 3))
    candidates = tuple(learned if c.name == "average-1" else c for c in run.candidates)
    text = replay(replace(run, candidates=candidates, chosen="average-1"))
    assert f"sk.Average(weights=({1 / 3!r}, {2 / 3!r}))" in text


def test_labels_alone_need_no_teacher() -> None:
    text = replay(replace(sample_run(), chosen="a1-labels"))
    assert "train_part(model, None, train, validation, settings," in text


def test_an_ensemble_of_originals_that_taught_is_made_first() -> None:
    run = with_teacher(sample_run(), "average of the originals")
    text = replay(run)
    ast.parse(text)
    assert "teacher = sk.Average()([original])" in text
    assert "train_part(model, teacher, train" in text


def test_a_student_is_made_after_its_teacher() -> None:
    run = sample_run()
    average = run.candidate("average-1")
    student = replace(run.candidate("a1-pruned"), name="student", parent="a1-fresh", recipe=None)
    student = replace(student, training=replace(student.training, teacher=average.name))
    text = replay(replace(run, candidates=(*run.candidates, student), chosen="student"))
    ast.parse(text)
    lines = text.splitlines()
    made = [line.split(" = ")[0] for line in lines if " = " in line and "recipe" not in line[:6]]
    assert made.index("member_4") < made.index("model")
    assert "model = copy_model(member_1)" in lines
    assert "train_part(model, member_4, train, validation, settings," in lines


@pytest.mark.parametrize(
    "name", ['a"); import os; os.system("x', "a\nimport os", "__import__('os')", "\u202e"]
)
def test_no_text_of_a_record_is_code(name: str) -> None:
    """Names, the teacher and the plan stand in quotes, or not at all."""
    run = with_teacher(sample_run(), name)
    given = replace(run.candidate("original"), name=name + "2")
    plan = {"seed": name, "settings": {name: 1, "mixup": name}}
    trained = replace(run.candidate("a1-fresh"), name=name, parent=given.name, plan=plan)
    text = replay(replace(run, candidates=(given, trained), chosen=name))
    assert all(line.isprintable() for line in text.splitlines())
    tree = ast.parse(text)
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    known = (
        "Path TrainingSettings fresh_model model original recipe settings sk teacher train "
        "train_part validation"
    )
    assert used <= set(known.split())
    imported = [node for node in ast.walk(tree) if isinstance(node, ast.Import)]
    assert [alias.name for node in imported for alias in node.names] == ["saikei"]
