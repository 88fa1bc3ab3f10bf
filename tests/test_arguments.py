"""Every public edit, fusion and function refuses arguments of a wrong type on one line."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

import saikei as sk
from saikei.arguments import Checked
from saikei.edits.recipe import EDITS
from saikei.fusion.registry import FUSIONS
from saikei.merging import methods

X, Y = np.random.default_rng(0).normal(size=(24, 4)).astype("float32"), np.arange(24) % 3
NET, OTHER, FIRST, SECOND = (
    keras.Sequential([keras.Input((4,)), layers.Dense(6), layers.Dense(3, "softmax")])
    for _ in range(4)
)
LEARNED = sk.Average("learn")
BUDGET = sk.Budget(macs=0.5)

# What no argument takes, and what some do.
WRONG: list[Any] = [object(), {1: object()}, b"x", 1j, keras, [object()], np.zeros((20, 20), "S1")]
ODD: list[Any] = [
    *WRONG,
    *(3, -1, 10**30, 2.5, float("nan"), True, None, "word", "", np.float32(0.5), np.int64(2)),
    *({}, {"a": 1}, [], [3], [None], ["word"], (0.5, "a"), {1, 2}, range(3), [[1]], iter([1])),
    *(object, lambda: 1, np.zeros(3), np.array(["a"]), X, layers.Dense(1), NET, BUDGET),
]

NEEDED: dict[str, dict[str, Any]] = {
    "Budget": {"macs": 0.5},
    "DropChannels": {"channels": {"dense": (0,)}},
    "Factorize": {"keep": 0.5},
    "PruneChannels": {"keep": 0.5},
    "Recipe": {"edits": [sk.FoldBatchNorm()]},
    "RemoveLayers": {"remove": 1},
    "ReplaceActivation": {"old": "relu", "new": "elu"},
    "ReplaceKernel": {"old": 5, "new": 3},
    "ReplacePooling": {"old": "any", "new": "average"},
    "Rule": {"flow": len, "macs": len},
}
VALUES: dict[str, type[Checked]] = {
    **EDITS,
    **FUSIONS,
    **{kind.__name__: kind for kind in (sk.Budget, sk.Recipe, sk.Rule)},
    **{
        name: kind
        for name, kind in vars(methods).items()
        if isinstance(kind, type) and issubclass(kind, Checked) and not inspect.isabstract(kind)
    },
}
MEMBERS, DATA = [FIRST, SECOND], (X, Y)
CUT = sk.PruneChannels(sk.Budget(macs=0.5))
FUNCTIONS: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "channel_groups": (sk.channel_groups, {"model": NET}),
    "choose": (sk.choose, {"fusions": [LEARNED], "members": MEMBERS, "data": DATA}),
    "cross_fit": (sk.cross_fit, {"build": lambda: NET, "data": DATA}),
    "cut_in_steps": (sk.cut_in_steps, {"model": NET, "edit": CUT, "train": DATA}),
    "declare_training_rows": (sk.declare_training_rows, {"model": NET, "data": DATA}),
    "distill": (sk.distill, {"student": NET, "teacher": OTHER, "train": DATA}),
    "evaluate": (sk.evaluate, {"model": NET, "data": DATA}),
    "explain": (sk.explain, {"fused": MEMBERS, "data": DATA, "fusion": LEARNED}),
    "fit": (sk.fit, {"model": NET, "train": DATA}),
    "merge_files": (sk.merge_files, {"paths": ["a.keras", "b.keras"], "out": "c.keras"}),
    "nested_score": (sk.nested_score, {"fusion": LEARNED, "members": MEMBERS, "data": DATA}),
    "optimize": (sk.optimize, {"models": NET, "train": DATA, "budget": BUDGET}),
    "profile": (sk.profile, {"model": NET}),
    "register_rule": (sk.register_rule, {"rule": sk.Rule(len, len)}),
    "an edit": (sk.PruneChannels(0.5), {"model": NET}),
    "a fusion": (sk.Average(), {"members": MEMBERS}),
}
# Models and data have tests of their own in test_bad_inputs.py.
OTHERWISE = {"model", "models", "members", "student", "teacher", "fused", "build"}
OTHERWISE |= {"data", "train", "validation", "test"}


def refusal(call: Callable[[], Any]) -> str | None:
    """The one line that a call is refused with; any other error is raised."""
    text = None
    try:
        call()
    except sk.SaikeiError as error:
        text = str(error)
    assert text is None or ("\n" not in text and len(text) < 500)
    return text


@pytest.mark.parametrize("name", VALUES)
def test_a_value_takes_an_argument_or_names_it(name: str) -> None:
    needed = NEEDED.get(name, {})
    for argument, parameter in inspect.signature(VALUES[name]).parameters.items():
        known = parameter.kind is not parameter.VAR_KEYWORD
        for value in ODD if known else ():
            text = refusal(lambda a=argument, v=value: VALUES[name](**{**needed, a: v}))
            wrong = any(value is one for one in WRONG)
            assert (text is not None) or not wrong or argument == "base", (argument, value)
            named = text is None or argument in text or str(value) in text or not value
            assert named or name in text, (argument, text)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_names_an_argument_of_a_wrong_type(name: str) -> None:
    function, needed = FUNCTIONS[name]
    own = function.__call__ if isinstance(function, Checked) else function
    for argument, parameter in inspect.signature(own).parameters.items():
        packed = parameter.kind is parameter.VAR_KEYWORD
        for value in () if packed or argument in OTHERWISE else WRONG:
            text = refusal(lambda a=argument, v=value: function(**{**needed, a: v}))
            assert text is not None and argument in text, (argument, value, text)


def test_all_public_names_are_tried() -> None:
    assert {*VALUES, *FUNCTIONS, "SaikeiError"} >= {*sk.__all__}


def test_numbers_of_numpy_are_taken_as_those_of_python() -> None:
    edit = sk.PruneChannels(np.float32(0.5), layers=np.array(["a", "b"]), seed=np.int64(3))
    assert edit == sk.PruneChannels(0.5, layers=("a", "b"), seed=3)
    assert sk.PruneChannels.from_dict(edit.to_dict()) == edit
    assert sk.Average(np.array([0.25, 0.75])) == sk.Average((0.25, 0.75))
    assert sk.DropChannels({"a": np.array([0, 2])}) == sk.DropChannels({"a": (0, 2)})
