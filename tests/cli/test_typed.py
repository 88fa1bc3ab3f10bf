"""Whatever is typed as a step, a fusion or a recipe is made, or refused in one line."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest

from saikei.budget import Budget
from saikei.cli.steps import _check_types, parse_call
from saikei.edits import DropChannels, Recipe
from saikei.edits.recipe import EDITS
from saikei.errors import EditError, InputError
from saikei.fusion.registry import FUSIONS
from saikei.merging.names import METHODS
from saikei.reading import read_json

CLASSES = {**EDITS, **FUSIONS, **METHODS, "Budget": Budget}
TEXTS = [
    *("", "(", ")", "1", "None", "[]", "x" * 100_000, "\\", '"', "import os", "exit()", "a.b()"),
    *("Average)", "Average().fit()", "Average()()", "Average(*[1])", "1 is 1"),
    *("Average(**{})", "Average(lambda: 1)", "Average(x for x in [])", "Average(f'{1}')"),
    *("Average('\\d')", "Average(1 is 1)", "Average(\x00)", "Average('\ud800')"),
    "(" * 1000,
    "-" * 5000 + "1",
    "Average(" * 300 + ")" * 300,
    "Average(" + "[" * 500 + "]" * 500 + ")",
    "Average(" + "1+" * 3000 + "1)",
    "Average(" + "9" * 5000 + ")",
]
WRONG = ["1j", "b'x'", "{1}", "...", "{'a': [1]}", "[[1]]", "'x'", "10**9", "nan", "Linear()"]


def refusal(text: str) -> str:
    with pytest.raises(InputError) as refused:
        parse_call(text, CLASSES, "--with")
    message = str(refused.value)
    assert "\n" not in message.strip() and len(message) < 2000
    return message


@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
def test_what_is_no_call_with_literals_is_refused_in_one_line(text: str) -> None:
    assert refusal(text).startswith("--with ")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        *((f"Stack(seed={wrong})", "") for wrong in WRONG),
        ("Cascade(seed=-1)", "give a whole number from 0"),
        ("Boost(learning_rate=(1, 2))", r"learning_rate=\(1, 2\)\): give a number"),
        ("Boost(epochs=True)", "Boost"),
        ("Chain(training=[1])", "Chain"),
        (
            "DropChannels({'conv': 'x'})",
            "give a dictionary from a text to a tuple of",
        ),
        ("DropChannels({1: (2,)})", "give a dictionary from a text"),
        ("DropChannels(0.5)", "give a dictionary from a text to a tuple of"),
    ],
)
def test_an_argument_of_another_type_is_named(text: str, message: str) -> None:
    assert re.search(message, refusal(text))


@pytest.mark.parametrize("name", CLASSES)
def test_what_a_class_has_by_default_is_of_its_types(name: str) -> None:
    for field in dataclasses.fields(CLASSES[name]):
        if field.init and field.default is not dataclasses.MISSING:
            _check_types(CLASSES[name], {field.name: field.default}, "")


def test_channels_may_be_any_whole_numbers() -> None:
    import numpy as np

    assert DropChannels({"a": np.arange(2)}) == DropChannels({"a": (0, 1)})  # type: ignore[dict-item]


VALUES: list[Any] = [None, True, -1, 0.5, 1e400, "x", [], {}, [[]], {"a": 1}, [[["x"]]], "\x00"]


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_a_recipe_of_other_values_is_refused_in_one_line(value: Any) -> None:
    for recipe in (value, {"edits": value}, {"edits": [value]}, {"edits": [{"edit": value}]}):
        with pytest.raises(EditError) as refused:
            Recipe.from_dict(json.loads(json.dumps(recipe)))
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize("text", ["{", "[" * 100_000, "9" * 5000, '{"edits": [NaN]}', "\ufeff{}"])
def test_text_that_is_no_recipe_is_refused_in_one_line(text: str, tmp_path: Path) -> None:
    with pytest.raises(EditError) as refused:
        Recipe.from_json(text)
    assert "\n" not in str(refused.value) and len(str(refused.value)) < 500
    with pytest.raises(InputError, match="cannot be read: "):
        read_json(tmp_path, "The recipe")
