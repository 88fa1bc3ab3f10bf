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
        "",
        'recipe = sk.Recipe.from_json(Path("candidates/a1-pruned/recipe.json").read_text())',
        "model = recipe(original, train)",
        "sk.distill(model, original, train, validation, temperature=4.0, alpha=0.3,",
        "           epochs=20, batch_size=128, learning_rate=0.001, seed=7)",
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
    assert "sk.fit(model, train, validation, epochs=20" in text
    assert "distill" not in text


def test_a_team_of_originals_that_taught_is_made_first() -> None:
    run = with_teacher(sample_run(), "average of the originals")
    text = replay(run)
    ast.parse(text)
    assert "teacher = sk.Average()([original])" in text
    assert "sk.distill(model, teacher, train" in text


def test_a_dataset_brings_its_own_batches() -> None:
    run = sample_run()
    assert "batch_size" not in replay(replace(run, settings=replace(run.settings, batch_size=None)))


@pytest.mark.parametrize(
    "name", ['a"); import os; os.system("x', "a\nimport os", "__import__('os')", "\u202e"]
)
def test_no_text_of_a_record_is_code(name: str) -> None:
    """Names, the teacher and the plan stand in quotes, or not at all."""
    run = with_teacher(sample_run(), name)
    given = replace(run.candidate("original"), name=name + "2")
    trained = replace(run.candidate("a1-fresh"), name=name, parent=given.name, plan={"seed": name})
    text = replay(replace(run, candidates=(given, trained), chosen=name))
    assert all(line.isprintable() for line in text.splitlines())
    tree = ast.parse(text)
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    known = "Path fresh_model model original recipe sk teacher train validation"
    assert used <= set(known.split())
    imported = [node for node in ast.walk(tree) if isinstance(node, ast.Import)]
    assert [alias.name for node in imported for alias in node.names] == ["saikei"]
