"""Records survive JSON unchanged, and a record that is not one is refused by field."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saikei.codec import from_jsonable, to_jsonable
from saikei.errors import InputError
from saikei.reading import LARGEST
from saikei.runs.candidate import Candidate, Cost, LayerChange, Training
from saikei.runs.record import Run
from saikei.scoring.score import Difference
from tests.report.sample import sample_run
from tests.search.made_up import candidate

REAL = st.floats(allow_nan=False, allow_infinity=False)
WHOLE = st.integers(-(2**63), 2**63)
JSON = st.recursive(
    st.none() | st.booleans() | WHOLE | REAL | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
TRAININGS = st.builds(
    Training,
    teacher=st.none() | st.text(),
    epochs=WHOLE,
    total=WHOLE,
    learning_rate=REAL,
    temperature=st.none() | REAL,
    alpha=REAL,
    seconds=REAL,
    curves=st.dictionaries(st.text(), st.lists(REAL).map(tuple), max_size=3),
)
COSTS = st.builds(
    Cost,
    params=WHOLE,
    macs=WHOLE,
    bytes=WHOLE,
    memory=WHOLE,
    latency=st.none() | REAL,
    batch_size=WHOLE,
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
        (("settings", "effort"), "20", r"Run\.settings\.effort is '20': expected int"),
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


def changed(path: tuple[Any, ...], value: Any) -> str:
    record = sample_run().to_dict()
    place = record
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    return json.dumps(record)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("seconds",), math.nan, "Run.seconds is nan: expected a finite number"),
        (("candidates", 1, "validation", "value"), -math.inf, "value is -inf: expected a finite"),
        (("settings", "limits"), {"macs": math.inf}, r"limits\['macs'\] is inf"),
        (("candidates", 1, "cost", "macs"), 10**400, "cost.macs has more than 19 digits"),
        (("seconds",), 10**400, "Run.seconds has more than 19 digits"),
        (("task",), "\ud800", "Run.task is .* expected whole characters"),
        (("samples",), {"\udfff": 1}, "A name in Run.samples is .* expected whole characters"),
        (
            ("cost_axis",),
            "watts",
            "cost axis is 'watts', and not one of macs, params, bytes, memory",
        ),
        (("chosen",), "a9", "no candidate 'a9'"),
        (("baseline",), "a1-pruned", "'a1-pruned' is no original"),
        (("front", 0), "a9", "no candidate 'a9'"),
        (("candidates", 1, "name"), "original", "two candidates have one name"),
        (("candidates", 1, "name"), "../up", "a candidate is called '../up'"),
        (("candidates", 1, "parent"), "a9", "of 'a1-pruned', the parent is 'a9'"),
        (("candidates", 1, "plan"), {"seed": "x"}, "of 'a1-pruned', the plan has no seed"),
        (("candidates", 1, "parent"), None, "of 'a1-pruned', there is no parent"),
        (("candidates", 1, "cost", "params"), -1, "of 'a1-pruned', a cost is -1"),
        (("candidates", 1, "layers", 0, "before"), 0, "channels of layer 'conv2d' are 0 and 15"),
        (("candidates", 1, "training", "temperature"), None, "a teacher but no temperature"),
        (("candidates", 1, "weights"), [0.5], "1 weights for 0 members"),
    ],
)
def test_a_value_that_no_run_has_is_named(path: Any, value: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Run.from_json(changed(path, value))


def test_every_latency_was_measured_where_it_counts() -> None:
    run = replace(sample_run(), cost_axis="latency")
    assert Run.from_json(run.to_json()) == run
    record = run.to_dict()
    record["candidates"][1]["cost"]["latency"] = None
    with pytest.raises(InputError, match="of 'a1-pruned', the latency was not measured"):
        Run.from_dict(record)


def test_what_was_logged_may_be_infinite() -> None:
    text = changed(("candidates", 1, "training", "curves"), {"loss": [math.inf, 1.0]})
    training = Run.from_json(text).candidate("a1-pruned").training
    assert training is not None and training.curves == {"loss": (math.inf, 1.0)}


def nested(depth: int) -> Any:
    return json.loads("[" * depth + "]" * depth)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "is not JSON"),
        (b"\xff\xfe{\x00}", "is not JSON"),
        (b"", "is not JSON"),
        (b"[" * 100_000, "nested too deep"),
        (b"[" + b"9" * 5000 + b"]", "is not JSON"),
        (b"[]", r"Run is \[\]: expected dict"),
        (changed(("candidates", 1, "plan"), {"like": nested(100)}).encode(), "more than 64 deep"),
        (b" " * (LARGEST + 1), "larger than 32 MiB"),
    ],
    ids=["half", "UTF-16", "empty", "deep", "digits", "list", "deep plan", "large"],
)
def test_a_damaged_file_is_named(tmp_path: Any, content: bytes, message: str) -> None:
    (tmp_path / "run.json").write_bytes(content)
    with pytest.raises(InputError, match=message) as refusal:
        Run.load(tmp_path)
    assert "\n" not in str(refusal.value) and len(str(refusal.value)) < 500
