"""A fingerprint changes with what goes into a run, and with nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from saikei.search.fingerprint import data_hash, model_hash, settings_hash

X = np.arange(12, dtype="float32").reshape(6, 2)
Y = np.array([0, 1, 0, 1, 0, 1])


def net(units: int = 3) -> keras.Model:
    return keras.Sequential(
        [keras.Input((2,)), layers.Dense(units, name="hidden"), layers.Dense(1, name="out")],
        name="net",
    )


def test_a_model_and_its_file_are_the_same(tmp_path: Path) -> None:
    model = net()
    model.save(tmp_path / "net.keras")
    loaded = keras.saving.load_model(tmp_path / "net.keras", compile=False)
    assert model_hash([loaded]) == model_hash([model])


def test_one_weight_makes_another_model() -> None:
    model = net()
    before = model_hash([model])
    kernel = model.get_weights()
    kernel[0][0, 0] += 1e-6
    model.set_weights(kernel)
    assert model_hash([model]) != before


def test_structure_and_order_make_another_run() -> None:
    a, b = net(), net()
    assert model_hash([a]) != model_hash([net(4)])
    assert model_hash([a, b]) != model_hash([b, a])
    assert model_hash([a]) != model_hash([a, b])


def test_how_a_model_is_compiled_and_was_trained_does_not_count() -> None:
    model = net()
    before = model_hash([model])
    model.compile("adam", "mse")
    assert model_hash([model]) == before


@pytest.mark.parametrize(
    "other",
    [
        [(X + 1e-6, Y), None],
        [(X, 1 - Y), None],
        [(X.astype("float64"), Y), None],
        [(X.reshape(6, 2, 1), Y), None],
        [(X[::-1], Y), None],
        [(X, Y), (X, Y)],
        [None, (X, Y)],
    ],
)
def test_other_data_makes_another_run(other: list[Any]) -> None:
    assert data_hash(other) != data_hash([(X, Y), None])


def test_the_order_of_keys_does_not_count() -> None:
    first = {"a": X, "b": X + 1}
    second = {"b": X + 1, "a": X}
    assert data_hash([(first, Y)]) == data_hash([(second, Y)])
    assert data_hash([(first, Y)]) != data_hash([({"a": X + 1, "b": X}, Y)])
    assert settings_hash({"macs": 1, "params": 2}) == settings_hash({"params": 2, "macs": 1})
    assert settings_hash({"macs": 1}) != settings_hash({"macs": 2})


def test_a_dataset_counts_by_its_kind_and_length() -> None:
    class Batches(keras.utils.PyDataset):
        def __len__(self) -> int:
            return 3

        def __getitem__(self, index: int) -> Any:
            return X, Y

    class Longer(Batches):
        def __len__(self) -> int:
            return 4

    assert data_hash([Batches()]) == data_hash([Batches()])
    assert data_hash([Batches()]) != data_hash([Longer()])
