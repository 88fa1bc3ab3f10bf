"""The run folder belongs to one run, and a kill leaves nothing half done in it."""

from __future__ import annotations

import json
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers

from saikei.errors import InputError
from saikei.fusion import Cascade
from saikei.models import CascadeModel
from saikei.search.folder import RunFolder
from tests.search.made_up import candidate

KNOWN = {"model": "m", "data": "d", "settings": "s", "backend": "b"}


def begun(path: Path) -> RunFolder:
    folder = RunFolder(path, {})
    folder.check(KNOWN)
    folder.begin(KNOWN)
    return folder


@pytest.mark.parametrize(
    ("key", "message"),
    [("model", "models"), ("data", "data"), ("settings", "budget"), ("backend", "backend")],
)
def test_another_run_is_refused_by_what_differs(tmp_path: Path, key: str, message: str) -> None:
    folder = begun(tmp_path)
    folder.check(KNOWN)
    with pytest.raises(InputError, match=f"a run with other .*{message}.*give out= another folder"):
        folder.check({**KNOWN, key: "another"})


def test_a_folder_of_other_things_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(InputError, match="is not the folder of a run"):
        RunFolder(tmp_path, {}).check(KNOWN)
    with pytest.raises(InputError, match="is not the folder of a run"):
        RunFolder(tmp_path / "thesis.tex", {}).check(KNOWN)


def test_a_kill_at_the_very_start_does_not_lock_the_folder(tmp_path: Path) -> None:
    (tmp_path / ".draft-fingerprint.json").write_text('{"mod')
    begun(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["candidates", "fingerprint.json"]


def test_a_half_written_candidate_is_cleared_and_was_never_seen(tmp_path: Path) -> None:
    folder = begun(tmp_path)
    draft = folder.candidates / ".draft-01-knapsack"
    draft.mkdir()
    (draft / "result.json").write_text('{"name"')
    assert folder.finished("01-knapsack", {"seed": 3}) is None
    begun(tmp_path)
    assert list(folder.candidates.iterdir()) == []


def test_a_saved_candidate_is_found_again_by_its_plan_alone(tmp_path: Path) -> None:
    folder = begun(tmp_path)
    made = candidate("01-knapsack", recipe={"edits": []}, plan={"seed": 3})
    model = keras.Sequential([keras.Input((2,)), layers.Dense(1)])
    model.compile("adam", "mse")
    outputs = np.arange(6.0).reshape(3, 2), np.ones((3, 1))
    folder.save(made, model, outputs)
    assert folder.finished("01-knapsack", {"seed": 3}) == made
    assert folder.finished("01-knapsack", {"seed": 4}) is None
    assert folder.finished("a2-pruned", {"seed": 3}) is None
    for expected, stored in zip(outputs, folder.outputs("01-knapsack"), strict=True):
        np.testing.assert_array_equal(stored, expected)
    recipe = folder.candidates / "01-knapsack" / "recipe.json"
    assert json.loads(recipe.read_text()) == {"edits": []}
    loaded = folder.model("01-knapsack")
    assert not loaded.compiled
    np.testing.assert_array_equal(loaded.get_weights()[0], model.get_weights()[0])


def test_a_candidate_of_another_plan_is_replaced(tmp_path: Path) -> None:
    folder = begun(tmp_path)
    folder.save(candidate(plan={"seed": 1}), None, (np.zeros(1),))
    folder.save(candidate(plan={"seed": 2}), None, (np.ones(1),))
    assert folder.finished("01-knapsack", {"seed": 1}) is None
    np.testing.assert_array_equal(folder.outputs("01-knapsack")[0], np.ones(1))


def test_a_cascade_stays_a_cascade_whose_later_members_run_on_few_rows(tmp_path: Path) -> None:
    folder = begun(tmp_path)
    keras.utils.set_random_seed(0)
    members = [
        keras.Sequential([keras.Input((4,)), layers.Dense(3, activation="softmax")], name=name)
        for name in ("first", "last")
    ]
    made = Cascade(thresholds=(0.5,))(members)
    folder.save(candidate("cascade-1", kind="fused"), made, ())
    folder.promote("cascade-1", members)
    x = np.random.default_rng(0).normal(size=(50, 4))
    expected, stages = made.predict_stages(x)
    assert 0 < stages.mean() < 1
    for path in (folder.best, folder.candidates / "cascade-1" / "model.keras"):
        loaded = folder.load(path)
        assert isinstance(loaded, CascadeModel)
        np.testing.assert_array_equal(loaded.predict_stages(x)[1], stages)
        np.testing.assert_allclose(loaded.predict(x), expected, rtol=1e-6)
