"""The data sets come as the demos and benchmarks expect them."""

from __future__ import annotations

import gzip

import keras
import numpy as np
import pytest

from saikei import datasets
from saikei.data import Splits
from saikei.errors import DataError


def parts(splits: Splits) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    return {"train": splits.train, "validation": splits.validation, "test": splits.test}


def test_the_digits_are_all_there_once():
    found = parts(datasets.digits())
    images = np.concatenate([x for x, _ in found.values()])
    assert images.shape == (1797, 8, 8, 1)
    assert images.dtype == np.float32
    assert (images.min(), images.max()) == (0.0, 1.0)
    assert {name: round(len(x) / 1797, 1) for name, (x, _) in found.items()} == {
        "train": 0.6,
        "validation": 0.2,
        "test": 0.2,
    }


def test_each_part_of_the_digits_has_every_class():
    for _, y in parts(datasets.digits(seed=1)).values():
        counts = np.bincount(y, minlength=10) / len(y)
        assert counts.min() > 0.08
        assert counts.max() < 0.12


def test_the_seed_splits_the_digits():
    first, again, other = (datasets.digits(seed).test[1] for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


@pytest.mark.skipif(
    not datasets.FASHION_MNIST.is_dir(), reason="Debian's dataset-fashion-mnist is not installed"
)
def test_fashion_mnist_comes_from_debians_package(monkeypatch):
    def no_download():
        raise AssertionError("downloaded although installed")

    monkeypatch.setattr(keras.datasets.fashion_mnist, "load_data", no_download)
    found = parts(datasets.fashion_mnist())
    assert {name: x.shape for name, (x, _) in found.items()} == {
        "train": (50_000, 28, 28, 1),
        "validation": (10_000, 28, 28, 1),
        "test": (10_000, 28, 28, 1),
    }
    for x, y in found.values():
        assert x.dtype == np.float32
        assert (x.min(), x.max()) == (0.0, 1.0)
        assert set(np.unique(y)) == set(range(10))
    np.testing.assert_array_equal(np.bincount(found["test"][1]), [1000] * 10)


def write_idx(path, array: np.ndarray) -> None:
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    path.write_bytes(gzip.compress(header + array.tobytes()))


@pytest.fixture
def folder(tmp_path):
    generator = np.random.default_rng(0)
    for part, count in (("train", 20), ("t10k", 5)):
        images = generator.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        write_idx(tmp_path / f"{part}-images-idx3-ubyte.gz", images)
        write_idx(tmp_path / f"{part}-labels-idx1-ubyte.gz", np.arange(count, dtype=np.uint8) % 10)
    return tmp_path


def test_validation_is_the_end_of_the_training_samples(folder):
    splits = datasets.fashion_mnist(validation=4, folder=folder)
    assert len(splits.train[0]) == 16
    np.testing.assert_array_equal(splits.validation[1], np.arange(16, 20) % 10)
    np.testing.assert_array_equal(splits.test[1], np.arange(5))


@pytest.mark.parametrize("validation", [0, -1, 20])
def test_a_validation_part_that_leaves_nothing_is_refused(folder, validation):
    with pytest.raises(DataError, match="between 1 and 19"):
        datasets.fashion_mnist(validation, folder)


@pytest.mark.parametrize(
    "damage", [b"", b"not gzip", gzip.compress(b""), gzip.compress(b"\0\0\x08\x01ab")]
)
def test_a_damaged_file_is_named(folder, damage):
    (folder / "t10k-images-idx3-ubyte.gz").write_bytes(damage)
    with pytest.raises(DataError, match=r"t10k-images.*reinstall"):
        datasets.fashion_mnist(4, folder)


def test_without_package_and_network_the_mend_is_named(tmp_path, monkeypatch):
    def offline():
        # What keras.utils.get_file raises.
        raise Exception("URL fetch failure on https://…: None -- no route\nmore")

    monkeypatch.setattr(keras.datasets.fashion_mnist, "load_data", offline)
    with pytest.raises(DataError, match="apt-get install dataset-fashion-mnist") as caught:
        datasets.fashion_mnist(folder=tmp_path / "none")
    assert "\n" not in str(caught.value)


def test_without_the_package_keras_downloads(tmp_path, monkeypatch):
    images, labels = np.full((20, 28, 28), 255, np.uint8), np.zeros(20, np.uint8)
    monkeypatch.setattr(
        keras.datasets.fashion_mnist, "load_data", lambda: ((images, labels), (images, labels))
    )
    splits = datasets.fashion_mnist(5, tmp_path / "none")
    assert splits.train[0].shape == (15, 28, 28, 1)
    assert splits.train[0].max() == 1.0
