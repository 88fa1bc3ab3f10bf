"""What cannot work is refused on one line, before anything is trained or written."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

import saikei as sk
from saikei.errors import (
    BudgetError,
    DataError,
    FusionError,
    InputError,
    ModelError,
    WorkError,
)
from saikei.search import originals
from saikei.search.splits import search_data
from tests.search.small import data, dense, search


@pytest.fixture(autouse=True)
def training_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any, **options: Any) -> None:
        raise AssertionError("something is trained")

    monkeypatch.setattr("saikei.search.race.rung.train_part", refuse)


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        (sk.Budget(macs=1), r"cannot be reached: macs can be brought down to \d+ "),
        (sk.Budget(params=0.001), r"cannot be reached: params can be brought down to \d+"),
        (sk.Budget(macs=1, latency=0.5), r"cannot be reached: macs can be brought down to \d+ "),
    ],
)
def test_an_impossible_budget_is_refused_with_the_smallest_that_can_be_reached(
    budget: sk.Budget, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Nothing is measured either.
    monkeypatch.setattr("saikei.search.structures.build_library", None)
    with pytest.raises(BudgetError, match=message):
        search(dense(), tmp_path / "run", budget=budget)
    assert not (tmp_path / "run").exists()


def test_the_smallest_that_is_named_can_be_reached() -> None:
    with pytest.raises(BudgetError) as refused:
        search(dense(), None, budget=sk.Budget(macs=1))
    smallest = re.search(r"brought down to ([\d,]+)", str(refused.value))
    assert smallest is not None
    least = int(smallest.group(1).replace(",", ""))
    with pytest.raises(WorkError, match="something is trained"):
        search(dense(), None, budget=sk.Budget(macs=least))


def test_a_budget_is_asked_for() -> None:
    with pytest.raises(BudgetError, match=r"budget=Budget\(macs=0.25\)"):
        search(dense(), None, budget=None)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"effort": 2}, "effort=2: give a whole number"),
        ({"effort": 9.5}, "effort=9.5: give a whole number"),
        ({"seed": -1}, "seed=-1: give a whole number"),
        ({"workers": 0}, "workers=0"),
        ({"methods": ["prun"]}, "Unknown method 'prun': did you mean 'prune'"),
        ({"methods": []}, "give a list of at least one"),
        ({"methods": [keras.Model]}, "classes derived from saikei's Edit"),
        (
            {"settings": {"temprature": 2}},
            "settings has no 'temprature': did you mean 'temperature'",
        ),
        ({"settings": {"alpha": (0.9, 0.1)}}, r"settings\['alpha'\] = \(0.9, 0.1\)"),
    ],
)
def test_arguments_out_of_range_are_refused_by_name(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        search(dense(), None, **wrong)


def test_weights_that_are_nan_are_refused_by_name() -> None:
    model = dense()
    first, *others = model.get_weights()
    model.set_weights([np.where(first > 0, np.nan, first), *others])
    with pytest.raises(ModelError, match="layer '.*' .Dense. holds NaN or infinite numbers"):
        search(model, None)


def test_labels_that_do_not_fit_are_refused_in_every_part() -> None:
    (xv, yv), (xt, yt) = data().validation or (), data().test or ()
    with pytest.raises(DataError):
        search(dense(), None, validation=(xv, np.stack([yv] * 3, axis=1)))
    with pytest.raises(DataError):
        search(dense(), None, test=(xt, np.stack([yt] * 3, axis=1)))
    with pytest.raises(DataError, match="validation data"):
        search(dense(), None, validation=(xv[:, :4], yv))
    with pytest.raises(DataError, match="test data holds NaN"):
        search(dense(), None, test=(np.where(xt > 0.9, np.nan, xt), yt))


def test_labels_that_are_nan_are_refused_unless_the_loss_leaves_them_out() -> None:
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    x = np.random.default_rng(0).normal(size=(20, 4))
    y = np.where(np.arange(20) % 3, x[:, 0], np.nan)

    def known(truth: Any, predicted: Any) -> Any:
        counts = keras.ops.logical_not(keras.ops.isnan(truth))
        return keras.ops.mean(keras.ops.where(counts, (truth - predicted) ** 2, 0.0))

    with pytest.raises(DataError, match="hold NaN or infinite numbers in 7 of 20 rows"):
        search_data({"model": model}, (x, y), (x, y), None, 0)
    model.compile("adam", known)
    assert search_data({"model": model}, (x, y), (x, y), None, 0).samples["train"] == 20


def test_a_dataset_cannot_be_split() -> None:
    class Batches(keras.utils.PyDataset):
        def __len__(self) -> int:
            return 1

        def __getitem__(self, index: int) -> Any:
            return data().train

    with pytest.raises(DataError, match="give validation="):
        sk.optimize(dense(), Batches(), budget=sk.Budget(macs=0.5), progress=False)


def test_models_that_do_not_belong_together_are_refused() -> None:
    five = keras.Sequential(
        [keras.Input((8, 8, 1)), layers.Flatten(), layers.Dense(5, activation="softmax")]
    )
    with pytest.raises(FusionError, match="same classes"):
        search([dense(), five], None)


@pytest.mark.parametrize(
    ("models", "message"), [([], "no model to optimize"), (["m.keras"], "got a str")]
)
def test_what_is_no_model_is_refused(models: list[Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        search(models, None)


def test_a_name_is_made_for_each_of_several_models() -> None:
    a, b = dense(0), dense(1)
    assert list(originals.name_models([a, b])) == ["original-1", "original-2"]
    assert list(originals.name_models([a])) == list(originals.name_models(a)) == ["original"]


def test_a_cascade_is_distinguished_from_its_members() -> None:
    def member(width: int) -> keras.Model:
        x = keras.Input((4,))
        hidden = layers.Dense(width)(x)
        return keras.Model(x, layers.Dense(3, activation="softmax")(hidden))

    cascade = sk.Cascade(thresholds=(0.5,))([member(2), member(8)])
    with pytest.raises(InputError, match=r"is a cascade.*optimize its members"):
        originals.name_models(cascade)
