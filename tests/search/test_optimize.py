"""A real search on digits: what it leaves, and what it can be held to."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import saikei as sk
from saikei.errors import InputError
from saikei.report import report_of
from saikei.runs import Run
from saikei.runs.candidate import Candidate
from saikei.runs.front import pareto_front
from saikei.search import Result
from saikei.search.student import Learner
from tests.search.small import (
    BUDGET,
    EFFORT,
    LEAST,
    convolutional,
    data,
    dense,
    search,
    state_of,
)


class Finished:
    """A finished search of all methods with what went in.

    Args:
        file: of the given model.
        folder: of the run.
    """

    def __init__(self, file: Path, folder: Path) -> None:
        self.folder = folder
        self.model: keras.Model = keras.saving.load_model(file)
        self.before = state_of(self.model)
        self.result: Result = search(self.model, folder)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    path = tmp_path_factory.mktemp("search")
    convolutional().save(path / "model.keras")
    return Finished(path / "model.keras", path / "run")


def test_the_run_folder_holds_every_candidate_and_the_answer(finished: Finished) -> None:
    present = {path.name for path in finished.folder.iterdir()}
    assert present == {
        "best.keras",
        "candidates",
        "fingerprint.json",
        "front.json",
        "libraries",
        "report.html",
        "details.json",
        "run.json",
        "rungs",
        "study.db",
    }
    for c in finished.result.candidates:
        files = {path.name for path in (finished.folder / "candidates" / c.name).iterdir()}
        recipe = {"recipe.json"} if c.recipe is not None else set()
        assert files == {"result.json", "validation.npz", "model.keras"} | recipe
    front = json.loads((finished.folder / "front.json").read_text())
    assert [entry["name"] for entry in front] == list(finished.result.run.front)
    assert Run.load(finished.folder) == finished.result.run


def test_every_kind_of_candidate_takes_part(finished: Finished) -> None:
    run = finished.result.run
    assert run.candidates[0].name == "original"
    kinds = {c.kind for c in run.candidates}
    assert kinds >= {"original", "kept", "fresh", "fused"}
    families = {c.family for c in run.candidates}
    assert families >= {"knapsack", "rival"}
    assert any(family.startswith("student of ") for family in families)
    for c in run.candidates:
        if c.family == "average":
            assert sum(c.weights) == pytest.approx(1)


def test_all_epochs_together_are_the_effort_and_each_is_counted_once(finished: Finished) -> None:
    run = finished.result.run
    spent = sum(one.epochs for one in run.effort)
    assert spent <= EFFORT
    rival = run.candidate("rival")
    trained = [c for c in run.candidates if c.training and c.family != "rival"]
    # The short rival is the beginning of the long one, up to where its learning rate falls.
    assert sum(c.training.epochs for c in trained) + rival.training.epochs <= spent
    assert all(len(c.training.curves["val_loss"]) == c.training.epochs for c in trained)


def test_a_rival_has_the_structure_and_the_cost_of_the_winner(finished: Finished) -> None:
    run, folder = finished.result.run, finished.folder / "candidates"
    rival = run.candidate("rival")
    same = [c for c in run.candidates if c.recipe == rival.recipe and c.kind == "kept"]
    assert same
    assert {c.cost.macs for c in same} == {rival.cost.macs}
    models = [keras.saving.load_model(folder / c.name / "model.keras") for c in (same[0], rival)]
    assert [w.shape for w in models[0].weights] == [w.shape for w in models[1].weights]
    # Fresh weights start from chance, kept ones from what they were.
    assert same[0].before is not None
    assert rival.before is not None
    assert same[0].before.value > rival.before.value


def test_every_method_has_an_account_with_its_figures(finished: Finished) -> None:
    run = finished.result.run
    assert [m.name for m in run.methods] == list(run.settings.methods)
    accounts = {m.name: m for m in run.methods}
    assert accounts["prune"].offered > 0
    assert accounts["quantize"].tried == 0
    assert "limits neither" in accounts["quantize"].reason
    assert all(m.reason for m in run.methods)
    library = run.library["original"]
    assert library.options >= accounts["prune"].offered
    assert library.rows > 0
    assert library.unit == "nats"


def test_what_ships_fits_the_budget_and_its_record_is_true(finished: Finished) -> None:
    result = finished.result
    whole, best = sk.profile(finished.model), sk.profile(result.best)
    assert BUDGET.fits(best, whole)
    assert result.chosen.fits
    assert (result.chosen.cost.macs, result.chosen.cost.params) == (best.macs, best.params)
    assert not result.baseline.fits
    for c in result.candidates:
        assert c.fits == BUDGET.fits(c.cost, whole)


def test_recorded_scores_are_those_of_the_stored_models(finished: Finished) -> None:
    for c in finished.result.candidates:
        if c.kind == "original" or c.plan.get("complexity", 0) > 1:
            continue
        path = finished.folder / "candidates" / c.name / "model.keras"
        score = sk.evaluate(keras.saving.load_model(path), data().validation)
        assert (score.value, score.n) == (pytest.approx(c.validation.value), c.validation.n)


def test_the_test_set_is_scored_for_the_original_and_the_chosen_model_only(
    finished: Finished,
) -> None:
    test = finished.result.run.test
    assert test is not None
    for score, model in (
        (test.baseline, finished.model),
        (test.chosen, finished.result.best),
    ):
        expected = sk.evaluate(model, data().test)
        assert (score.value, score.low, score.high) == pytest.approx(
            (expected.value, expected.low, expected.high)
        )
    assert test.difference.value == pytest.approx(test.chosen.value - test.baseline.value)


def test_the_given_model_is_not_changed(finished: Finished) -> None:
    assert state_of(finished.model) == finished.before
    assert all(layer.trainable for layer in finished.model.layers)


def test_the_front_is_of_all_candidates(finished: Finished) -> None:
    run = finished.result.run
    assert run.cost_axis == "macs"
    assert list(run.front) == [c.name for c in pareto_front(run.candidates, "macs")]
    table = str(finished.result.front)
    assert all(c.name in table for c in finished.result.candidates)
    assert [c.name for c in finished.result.front.candidates] == list(run.front)


LOAD = """
import sys
import keras, numpy as np
model = keras.saving.load_model(sys.argv[1])
x = np.load(sys.argv[2])
np.save(sys.argv[3], model.predict(x, verbose=0))
assert not any(name.split(".")[0] == "saikei" for name in sys.modules)
"""


@pytest.mark.slow
def test_the_best_model_loads_without_saikei_and_predicts_the_same(
    finished: Finished, tmp_path: Path
) -> None:
    x = data().validation[0] if data().validation else None
    np.save(tmp_path / "x.npy", x)
    best = finished.folder / "best.keras"
    files = [str(tmp_path / "x.npy"), str(tmp_path / "y.npy")]
    # The file holds no optimizer state, which Keras warns about.
    warnings = ["-W", "error", "-W", "ignore:Skipping variable loading for optimizer:UserWarning"]
    subprocess.run([sys.executable, *warnings, "-c", LOAD, str(best), *files], check=True)
    expected = finished.result.best.predict(x, verbose=0)
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", [pytest.param("rival", marks=pytest.mark.long), "01-knapsack"])
def test_the_replay_in_the_report_makes_the_shipped_model(
    finished: Finished, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    run = replace(finished.result.run, chosen=name)
    names: dict[str, Any] = {
        "original": finished.model,
        "train": data().train,
        "validation": data().validation,
    }
    monkeypatch.chdir(finished.folder)
    exec(compile(report_of(run).replay, "replay", "exec"), names)
    stored = keras.saving.load_model(f"candidates/{name}/model.keras")
    for ours, theirs in zip(names["model"].get_weights(), stored.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)


def without_clocks(candidate: Candidate) -> Candidate:
    """A record without what was measured in time."""
    training = candidate.training and replace(candidate.training, seconds=0.0)
    return replace(candidate, cost=replace(candidate.cost, latency=None), training=training)


def assert_same(a: Result, b: Result) -> None:
    """Two runs are one in everything but time."""
    assert list(map(without_clocks, a.candidates)) == list(map(without_clocks, b.candidates))
    assert (a.run.chosen, a.run.front, a.run.comparisons, a.run.decisions) == (
        b.run.chosen,
        b.run.front,
        b.run.comparisons,
        b.run.decisions,
    )
    for ours, theirs in zip(a.best.get_weights(), b.best.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.slow
def test_the_same_seed_gives_the_same_front_and_the_test_set_has_no_influence(
    finished: Finished, tmp_path: Path
) -> None:
    again = search(finished.model, tmp_path / "run", test=None)
    assert again.run.test is None
    assert_same(again, finished.result)
    stored = [f"candidates/{c.name}/validation.npz" for c in again.candidates]
    for name in stored:
        ours, theirs = (np.load(folder / name) for folder in (again.folder, finished.folder))
        np.testing.assert_array_equal(ours["arr_0"], theirs["arr_0"])


@pytest.mark.parametrize("rivals", [False, pytest.param(True, marks=pytest.mark.long)])
def test_where_nothing_is_to_be_saved_the_given_model_is_trained_on(
    rivals: bool, tmp_path: Path
) -> None:
    effort = 12 if rivals else 3
    asked = {**LEAST, "budget": sk.Budget(macs=1.0), "methods": ["prune", "average"]}
    asked |= {"effort": effort, "rivals": rivals}
    result = search(dense(), tmp_path / "run", **asked)
    run, given = result.run, result.baseline
    further = run.candidate("trained-further")
    assert (further.parent, further.recipe) == (given.name, None)
    assert further.cost.macs == given.cost.macs
    assert further.training is not None
    assert further.training.epochs == (4 if rivals else 2)
    assert effort / 2 < sum(one.epochs for one in run.effort) <= effort
    assert "as given" not in {c.family for c in run.candidates}
    (taught,) = (d for d in run.decisions if d.topic == "teacher of trained-further")
    assert f"It was trained on for {further.training.epochs} epochs" in taught.reason
    assert any(d.topic == "rivals from fresh weights" for d in run.decisions) is not rivals
    # Its rivals have its structure, and as many epochs as it and as the whole search.
    found = {c.name: c for c in run.candidates if c.family == "rival"}
    assert found.keys() == ({"rival", "rival-short"} if rivals else set())
    assert all((c.parent, c.recipe, c.kind) == (given.name, None, "fresh") for c in found.values())
    epochs = [c.training.epochs for c in found.values() if c.training]
    assert sorted(epochs) == ([4, 5] if rivals else [])


@pytest.mark.long
def test_alpha_counts_where_the_given_model_is_trained_on(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {**LEAST, "budget": sk.Budget(macs=1.0), "methods": ["prune"]}
    asked |= {"effort": 3, "settings": {"alpha": 0.3}}
    monkeypatch.setattr(Learner, "learns_from", lambda *given: False)
    result = search(dense(), None, **asked)
    (taught,) = (d for d in result.run.decisions if d.topic == "teacher of trained-further")
    training = result.run.candidate("trained-further").training
    assert taught.choice == result.baseline.name
    assert training is not None and training.alpha == 0.3


def test_a_finished_run_is_read_and_not_done_again(finished: Finished) -> None:
    before = {p: p.stat().st_mtime_ns for p in finished.folder.rglob("*") if p.is_file()}
    again = search(finished.model, finished.folder)
    assert again.run == finished.result.run
    assert {p: p.stat().st_mtime_ns for p in finished.folder.rglob("*") if p.is_file()} == before


@pytest.mark.parametrize(
    ("change", "message"),
    [({"seed": 5}, "settings"), ({"budget": sk.Budget(macs=0.4)}, "settings")],
)
def test_the_folder_of_other_settings_is_refused(
    finished: Finished, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=f"other {message}"):
        search(finished.model, finished.folder, **change)


def test_the_folder_of_another_model_or_other_data_is_refused(finished: Finished) -> None:
    with pytest.raises(InputError, match="other models"):
        search(dense(), finished.folder)
    x, y = data().validation or ()
    with pytest.raises(InputError, match="other data"):
        search(finished.model, finished.folder, validation=(x[1:], y[1:]))


def test_training_data_is_all_that_weights_see(finished: Finished) -> None:
    assert finished.result.run.samples == {"train": 400, "validation": 150, "test": 150}
    assert finished.result.run.settings.batch_size == 16
    assert finished.result.run.settings.effort == EFFORT


def test_the_model_that_was_trained_and_its_file_are_one_run(finished: Finished) -> None:
    assert search(convolutional(), finished.folder).run == finished.result.run
