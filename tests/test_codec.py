"""Arguments go through JSON by their type hints, and what does not fit is named."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pytest

from saikei.budget import Budget
from saikei.codec import Jsonable
from saikei.errors import BudgetError, EditError


@dataclass(frozen=True)
class Step(Jsonable):
    error_class: ClassVar[type[EditError]] = EditError
    keep: float | Budget
    layers: tuple[str, ...] = ()
    size: int | Sequence[int] | None = None
    budget: Budget | None = None
    rank: str | Callable[..., Any] = field(default="l1", metadata={"json": "use a name"})


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (Step(0.5, ("a",), 3), {"keep": 0.5, "layers": ["a"], "size": 3, "budget": None}),
        (Step(Budget(macs=0.5), size=(3, 1)), {"keep": {"budget": {"macs": 0.5}}, "size": [3, 1]}),
        (Step(0.5, budget=Budget(params=7)), {"budget": {"params": 7}}),
    ],
)
def test_arguments_come_back_from_json(step: Step, expected: dict[str, Any]) -> None:
    written = step.to_dict()
    assert expected.items() <= written.items()
    assert Step.from_dict(json.loads(json.dumps(written))) == step


def test_what_has_a_default_may_be_missing() -> None:
    assert Step.from_dict({"keep": 1.0}) == Step(1.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give an object"),
        ({}, "needs the argument 'keep'"),
        ({"keep": 1.0, "layer": ["a"]}, "no argument 'layer': it has keep, layers, size"),
    ],
)
def test_names_that_do_not_fit_are_refused(arguments: Any, message: str) -> None:
    with pytest.raises(EditError, match=message):
        Step.from_dict(arguments)


def test_a_value_that_json_cannot_hold_is_named() -> None:
    with pytest.raises(EditError, match=r"Step\(rank=<function .*use a name"):
        Step(0.5, rank=lambda: 0).to_dict()
    with pytest.raises(BudgetError, match="no argument 'flops': it has macs"):
        Budget.from_dict({"flops": 1})
