"""The data sets come as the demos and benchmarks expect them."""

from __future__ import annotations

import gzip

import keras
import numpy as np
import pytest
from sklearn.datasets import load_digits

from saikei import datasets
from saikei.data import Splits
from saikei.errors import DataError


def parts(splits: Splits) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    return {"train": splits.train, "validation": splits.validation, "test": splits.test}


def in_order(images: np.ndarray) -> np.ndarray:
    flat = images.reshape(len(images), -1)
    return flat[np.lexsort(flat.T)]


def test_the_digits_are_all_there_once():
    found = parts(datasets.digits())
    images = np.concatenate([x for x, _ in found.values()])
    assert images.shape == (1797, 8, 8, 1)
    whole = (load_digits().images[..., None] / 16).astype("float32")
    np.testing.assert_array_equal(in_order(images), in_order(whole))
    assert images.dtype == np.float32
    assert (images.min(), images.max()) == (0.0, 1.0)
    assert {name: round(len(x) / 1797, 1) for name, (x, _) in found.items()} == {
        "train": 0.6,
        "validation": 0.2,
        "test": 0.2,
    }


def test_larger_digits_repeat_pixels_in_a_margin_of_zeros():
    small, large = datasets.digits().train[0], datasets.digits(size=29).train[0]
    assert large.shape[1:] == (29, 29, 1)
    for first in (2, 4):
        np.testing.assert_array_equal(large[:, first:26:3, first:26:3], small)
    assert large[:, :2].max() == large[:, 26:].max() == large[:, :, 26:].max() == 0
    with pytest.raises(DataError, match="size=7"):
        datasets.digits(size=7)


def test_each_part_of_the_digits_has_every_class():
    for _, y in parts(datasets.digits(seed=1)).values():
        counts = np.bincount(y, minlength=10) / len(y)
        assert counts.min() > 0.08
        assert counts.max() < 0.12


def test_the_seed_splits_the_digits():
    first, again, other = (parts(datasets.digits(seed)) for seed in (0, 0, 1))
    for name, (x, y) in first.items():
        np.testing.assert_array_equal(x, again[name][0])
        np.testing.assert_array_equal(y, again[name][1])
        assert (y != other[name][1]).any()


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


def test_the_pixels_and_labels_are_those_of_the_files(folder):
    splits = datasets.fashion_mnist(validation=4, folder=folder)
    pixels = np.random.default_rng(0).integers(0, 256, (20, 28, 28), dtype=np.uint8)
    read = np.concatenate([splits.train[0], splits.validation[0]])[..., 0]
    np.testing.assert_array_equal(np.round(read * 255), pixels)
    np.testing.assert_array_equal(splits.train[1], np.arange(16) % 10)


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
    "damage",
    [
        b"",
        b"not gzip",
        gzip.compress(b""),
        gzip.compress(b"\0\0\x08\x01ab"),
        gzip.compress(bytes(1000))[:-9],
        gzip.compress(b"")[:10] + b"\xff" * 200,
    ],
    # Compressed bytes hold the time, and so would not name a test twice alike.
    ids=["nothing", "text", "no header", "no data", "cut off", "overwritten"],
)
def test_a_damaged_file_is_named(folder, damage):
    (folder / "t10k-images-idx3-ubyte.gz").write_bytes(damage)
    with pytest.raises(DataError, match=r"t10k-images.*reinstall"):
        datasets.fashion_mnist(4, folder)


def test_pictures_and_labels_that_do_not_match_are_refused(folder):
    write_idx(folder / "t10k-labels-idx1-ubyte.gz", np.zeros(4, np.uint8))
    with pytest.raises(DataError, match="5 pictures and 4 labels"):
        datasets.fashion_mnist(4, folder)


def test_numbers_of_another_type_are_not_taken_for_bytes(folder):
    floats = bytes([0, 0, 13, 1]) + np.array([5], ">u4").tobytes() + bytes(5)
    (folder / "t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(floats))
    with pytest.raises(DataError, match=r"t10k-labels.*reinstall"):
        datasets.fashion_mnist(4, folder)


def test_a_folder_without_the_files_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"train-images.*reinstall"):
        datasets.fashion_mnist(4, tmp_path)


@pytest.mark.parametrize("reason", ["URL fetch failure on https://…: no route\nmore", ""])
def test_without_package_and_network_the_fix_is_named(tmp_path, monkeypatch, reason):
    def offline():
        # What keras.utils.get_file raises.
        raise Exception(reason)

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
