"""A search over models that read different inputs: fused, they take all of them by name."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

import saikei as sk
from saikei.cli import main
from saikei.errors import DataError, FusionError
from saikei.runs.record import Run
from saikei.search.originals import name_models
from tests.search.small import data


def inputs_of(x: Any) -> dict[str, Any]:
    """The two halves of each image as different inputs: an image, and a table of numbers."""
    return {"upper": x[:, :4], "lower": x[:, 4:].reshape(len(x), -1)}


@cache
def parts() -> dict[str, Any]:
    """Training, validation and test data with named inputs."""
    splits = data()
    assert splits.validation is not None
    assert splits.test is not None
    given = {"train": splits.train, "validation": splits.validation, "test": splits.test}
    return {name: (inputs_of(x), y) for name, (x, y) in given.items()}


def reads_image(name: str | None = "upper") -> keras.Model:
    """A network that reads the upper half, as one tensor."""
    x = keras.Input((4, 8, 1), name=name)
    y = layers.Conv2D(8, 3, activation="relu", name="conv")(x)
    y = layers.Dense(10, activation="softmax", name="classes")(layers.Flatten(name="flat")(y))
    return keras.Model(x, y, name="image")


def reads_both() -> keras.Model:
    """A network that reads both by name, so that the input of the other is one of its own."""
    x = {"upper": keras.Input((4, 8, 1), name="upper"), "lower": keras.Input((32,), name="lower")}
    flat = layers.Concatenate(name="all")([layers.Flatten(name="flat")(x["upper"]), x["lower"]])
    y = layers.Dense(6, activation="relu", name="hidden")(flat)
    return keras.Model(x, layers.Dense(10, activation="softmax", name="classes")(y), name="both")


@cache
def trained() -> list[keras.Model]:
    """Both, each trained on its own inputs."""
    keras.utils.set_random_seed(0)
    models = [reads_image(), reads_both()]
    for model in models:
        sk.fit(model, parts()["train"], epochs=3, batch_size=16, learning_rate=1e-2, progress=False)
    return models


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a search over both, by the command line."""
    place = tmp_path_factory.mktemp("several")
    arrays = {}
    for part, (x, y) in parts().items():
        name = "val" if part == "validation" else part
        arrays |= {f"x_{name}.{key}": one for key, one in x.items()} | {f"y_{name}": y}
    np.savez(place / "data.npz", **arrays)
    for model in trained():
        model.save(place / f"{model.name}.keras")
    files = [str(place / f"{model.name}.keras") for model in trained()]
    options = ["--params", "2200", "--effort", "9", "--seed", "1", "--no-latency", "--quiet"]
    where = ["--data", str(place / "data.npz"), "--out", str(place / "run")]
    methods = ["--methods", "prune,average,multimodal"]
    assert main(["optimize", *files, *where, *options, *methods]) == 0
    return place / "run"


@pytest.mark.long
def test_each_model_is_cut_on_its_own_inputs(folder: Path) -> None:
    run = Run.load(folder)
    assert set(run.library) == {"original-1", "original-2"}
    for candidate in run.candidates:
        if candidate.kind in ("kept", "fresh") and candidate.parent in run.library:
            model = keras.saving.load_model(folder / "candidates" / candidate.name / "model.keras")
            own = {"original-1": {"upper"}, "original-2": {"upper", "lower"}}
            assert set(model.input) == own[candidate.parent]


@pytest.mark.long
def test_the_fused_model_takes_all_inputs_by_name(folder: Path) -> None:
    run = Run.load(folder)
    fused = [c for c in run.candidates if c.kind == "fused"]
    parents = {c.name: c.parent or c.name for c in run.candidates}
    mixed = [c for c in fused if len({parents[name] for name in c.members}) > 1]
    assert mixed, "no ensemble of models with different inputs was built"
    assert next(m for m in run.methods if m.name == "multimodal").tried == len(mixed)
    x, y = parts()["validation"]
    for one in mixed:
        model = keras.saving.load_model(folder / "candidates" / one.name / "model.keras")
        assert set(model.input) == {"upper", "lower"}
        assert model.predict(x, verbose=0).shape == (len(y), 10)


@pytest.mark.long
def test_the_chosen_model_scores_what_the_record_shows(folder: Path) -> None:
    run = Run.load(folder)
    assert run.test is not None
    best = keras.saving.load_model(folder / "best.keras")
    assert sk.evaluate(best, parts()["test"]).value == pytest.approx(run.test.chosen.value)


@pytest.mark.long
def test_a_model_is_scored_on_data_with_more_inputs_than_it_reads() -> None:
    x, y = parts()["test"]
    model = trained()[0]
    assert sk.evaluate(model, (x, y)) == sk.evaluate(model, (x["upper"], y))


def test_inputs_that_differ_need_names() -> None:
    with pytest.raises(FusionError, match="read different inputs.*keras.Input.*name='image'"):
        name_models([reads_image(None), reads_both()])
    x, y = data().train
    with pytest.raises(DataError, match="validation data does not name them.*'lower': …, 'upper'"):
        sk.optimize(trained(), (x, y), (x, y), sk.Budget(macs=0.5))
