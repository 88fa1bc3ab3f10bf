"""Records survive JSON unchanged, and a record that is not one is refused by field."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saikei.errors import InputError
from saikei.search.codec import from_jsonable, to_jsonable
from saikei.search.record import Candidate, Cost, Difference, LayerChange, Run, Training
from tests.report.sample import sample_run
from tests.search.made_up import candidate

REAL = st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | REAL | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
TRAININGS = st.builds(
    Training,
    teacher=st.none() | st.text(),
    epochs=st.integers(),
    learning_rate=REAL,
    temperature=st.none() | REAL,
    alpha=REAL,
    seconds=REAL,
    curves=st.dictionaries(st.text(), st.lists(REAL).map(tuple), max_size=3),
)
COSTS = st.builds(
    Cost,
    params=st.integers(),
    macs=st.integers(),
    activation_bytes=st.integers(),
    latency=st.none() | REAL,
    batch_size=st.integers(),
)


def through_json(value: Any) -> Any:
    return json.loads(json.dumps(to_jsonable(value)))


@settings(max_examples=40, deadline=None)
@given(
    training=st.none() | TRAININGS,
    cost=COSTS,
    recipe=st.none() | st.dictionaries(st.text(), JSON),
    members=st.lists(st.text()).map(tuple),
    weights=st.lists(REAL).map(tuple),
)
def test_any_candidate_survives_json(
    training: Training | None, cost: Cost, recipe: Any, members: Any, weights: Any
) -> None:
    layers = (LayerChange("conv", "Conv2D", 8, 3, None), LayerChange("out", "Dense", 2, 2, "why"))
    made = candidate(
        training=training,
        cost=cost,
        recipe=recipe,
        members=members,
        weights=weights,
        layers=layers,
    )
    assert from_jsonable(Candidate, through_json(made)) == made


def test_a_run_survives_json() -> None:
    run = sample_run()
    assert Run.from_json(run.to_json()) == run
    assert Run.from_dict(run.to_dict()) == run
    without_test = replace(run, test=None)
    assert Run.from_json(without_test.to_json()) == without_test


def test_a_whole_number_is_read_as_the_float_that_the_field_is() -> None:
    read = from_jsonable(Difference, {"value": 1, "low": 0, "high": 2})
    assert read == Difference(1.0, 0.0, 2.0)
    assert isinstance(read.value, float)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("chosen",), 3, r"Run\.chosen is 3: expected str"),
        (("settings", "epochs"), "20", r"Run\.settings\.epochs is '20': expected int"),
        (("settings", "seed"), True, r"Run\.settings\.seed is True: expected int"),
        (("candidates", 1, "kind"), "guess", r"Run\.candidates\[1\]\.kind is 'guess'"),
        (("candidates", 0, "colour"), "red", r"'colour' of Run\.candidates\[0\] is unknown"),
        (("samples",), [1], r"Run\.samples is \[1\]: expected dict"),
    ],
)
def test_a_wrong_field_is_named(path: tuple[Any, ...], value: Any, message: str) -> None:
    record = sample_run().to_dict()
    place = record
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    with pytest.raises(InputError, match=message):
        Run.from_dict(record)


def test_a_missing_field_is_named() -> None:
    record = sample_run().to_dict()
    del record["front"]
    with pytest.raises(InputError, match="'front' of Run is missing"):
        Run.from_dict(record)


def test_what_is_no_json_is_refused() -> None:
    with pytest.raises(InputError, match="is not JSON"):
        Run.from_json("{")


def test_a_folder_without_a_finished_run_is_refused(tmp_path: Any) -> None:
    with pytest.raises(InputError, match="holds no finished run"):
        Run.load(tmp_path)


def test_an_unknown_candidate_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InputError, match="no candidate 'b': use one of original, a1-pruned"):
        sample_run().candidate("b")
