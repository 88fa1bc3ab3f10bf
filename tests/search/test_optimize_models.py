"""Searches over several models, without validation data, and with a budget that is kept."""

from __future__ import annotations

import gc
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

import saikei as sk
from saikei.search import Result
from tests.search.small import BRIEF, LEAST, data, dense, search


@pytest.fixture(scope="module")
def several() -> Result:
    """Two models, without validation data and without a folder."""
    models = [dense(seed, name=f"net_{seed}") for seed in (0, 1)]
    return search(models, None, validation=None, budget=sk.Budget(params=0.5), **BRIEF)


@pytest.mark.long
def test_each_of_several_models_is_cut_and_one_teacher_is_chosen(several: Result) -> None:
    run = several.run
    assert [c.name for c in run.candidates[:2]] == ["original-1", "original-2"]
    parents = {c.parent for c in run.candidates if c.kind in ("kept", "fresh")}
    assert parents >= {"original-1", "original-2"}
    teachers = {c.training.teacher for c in run.candidates if c.training} - {None}
    decision = next(d for d in run.decisions if d.topic == "teacher")
    # The last student learns from a fused model.
    assert {t for t in teachers if t in ("original-1", "original-2")} <= {decision.choice}
    assert run.baseline in ("original-1", "original-2")
    best = max(run.candidates[:2], key=lambda c: (c.validation.value, -c.validation.loss))
    assert run.baseline == best.name


def test_shares_of_the_budget_are_of_the_best_given_model(several: Result) -> None:
    assert several.chosen.cost.params <= 0.5 * several.baseline.cost.params
    assert several.best.count_params() == several.chosen.cost.params
    assert several.run.cost_axis == "params"


def test_without_validation_a_fifth_of_the_training_data_is_held_out(several: Result) -> None:
    assert several.run.samples == {"train": 320, "validation": 80, "test": 150}
    assert several.chosen.validation.n == 80


@pytest.mark.long
def test_a_run_without_a_folder_lives_as_long_as_its_result() -> None:
    model = dense()
    result = search(model, None, budget=sk.Budget(macs=1.0), **LEAST)
    path = result.folder
    assert (path / "best.keras").is_file()
    report = result.report(path.parent / f"{path.name}.html")
    assert report.is_file()
    report.unlink()
    del result
    gc.collect()
    assert not path.exists()


@pytest.mark.long
def test_an_original_that_fits_ships_where_training_brings_nothing(tmp_path: Any) -> None:
    model = dense()
    # A rate at which nothing is learned.
    settings = {"learning_rate": 1e-9}
    result = search(model, tmp_path / "run", budget=sk.Budget(macs=1.0), settings=settings, **LEAST)
    assert result.baseline.kind == "given"
    assert result.chosen.validation.value >= result.baseline.validation.value
    if result.chosen.name != result.baseline.name:
        assert result.chosen.cost.macs < result.baseline.cost.macs
        return
    x = data().train[0][:10]
    np.testing.assert_allclose(
        result.best.predict(x, verbose=0), model.predict(x, verbose=0), rtol=1e-6
    )


def huge() -> tuple[Any, Any, keras.Model]:
    """Targets whose square overflows, so that every training diverges."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(64, 4)).astype("float32")
    model = keras.Sequential(
        [keras.Input((4,)), layers.Dense(8, name="hidden"), layers.Dense(1, name="out")]
    )
    train = x, np.full((64, 1), 1e30, dtype="float32")
    return train, (x, x[:, :1]), model


@pytest.mark.long
def test_trainings_that_diverge_leave_the_weights_as_they_were_cut(tmp_path: Any) -> None:
    train, validation, model = huge()
    arguments = {**LEAST, "effort": 6, "progress": False, "out": tmp_path / "r"}
    result = sk.optimize(model, train, validation, sk.Budget(macs=0.5), **arguments)
    kept = [c for c in result.candidates if c.kind == "kept" and c.before is not None]
    assert all(c.validation.loss <= c.before.loss for c in kept)
    assert np.isfinite(result.chosen.validation.loss)
    # A second call reads what there is.
    again = sk.optimize(model, train, validation, sk.Budget(macs=0.5), **arguments)
    assert again.run == result.run


@pytest.mark.long
def test_two_outputs_and_a_dataset_are_searched_too() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(96, 6)).astype("float32")
    y = {"kind": (x[:, 0] > 0).astype("int32"), "size": x[:, 1:2]}
    inputs = keras.Input((6,), name="x")
    hidden = layers.Dense(16, activation="relu", name="hidden")(inputs)
    outputs = {
        "kind": layers.Dense(2, activation="softmax", name="kind_out")(hidden),
        "size": layers.Dense(1, name="size_out")(hidden),
    }
    model = keras.Model(inputs, outputs)

    class Batches(keras.utils.PyDataset):
        def __len__(self) -> int:
            return 3

        def __getitem__(self, index: int) -> Any:
            rows = slice(32 * index, 32 * index + 32)
            return x[rows], {name: values[rows] for name, values in y.items()}

    result = sk.optimize(
        model,
        Batches(),
        (x, y),
        sk.Budget(params=0.5),
        effort=3,
        latency=False,
        progress=False,
    )
    assert result.baseline.validation.name == "loss"
    assert result.run.task == "multiclass and regression"
    assert result.run.settings.batch_size is None
    assert result.run.samples["train"] == 0
    assert set(result.best.output) == {"kind", "size"}
    assert result.chosen.cost.params <= 0.5 * result.baseline.cost.params


@pytest.mark.long
def test_a_boosted_series_competes_where_it_is_asked_for() -> None:
    asked = ["prune", "average", "boost"]
    changes = {**LEAST, "methods": asked, "effort": 20}
    result = search(dense(), None, budget=sk.Budget(macs=0.9), **changes)
    (account,) = (m for m in result.run.methods if m.name == "boost")
    boosted = [c for c in result.candidates if c.family == "boost"]
    assert account.tried == len(boosted)
    assert [e.epochs for e in result.run.effort if e.family == "boost"] == [2]
    assert sum(e.epochs for e in result.run.effort) <= 20
    assert all(c.fits and c.kind == "fused" for c in boosted)
    assert boosted or account.reason
