"""Archives of arrays are read part by part, or refused with one clear line."""

from __future__ import annotations

import zipfile

import numpy as np
import pytest

from saikei.errors import DataError
from saikei.npz import Archive, load_npz


def small_arrays(samples: int = 12, seed: int = 0) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    x = generator.random((samples, 4)).astype("float32")
    return {"x_train": x, "y_train": np.arange(samples) % 3}


def test_a_file_gives_back_every_part_that_was_saved(tmp_path):
    given = small_arrays()
    x, y = given["x_train"], given["y_train"]
    np.savez(tmp_path / "d.npz", **given, x_val=x[:2], y_val=y[:2], x_test=x[2:5], y_test=y[2:5])

    archive = load_npz(tmp_path / "d.npz")

    assert isinstance(archive, Archive)
    for part, rows in ((archive.train, slice(None)), (archive.validation, slice(2))):
        np.testing.assert_array_equal(part[0], x[rows])
        np.testing.assert_array_equal(part[1], y[rows])
    np.testing.assert_array_equal(archive.test[1], y[2:5])


def test_parts_that_are_not_in_the_file_are_none(tmp_path):
    np.savez(tmp_path / "d.npz", **small_arrays())
    archive = load_npz(tmp_path / "d.npz")
    assert archive.validation is None
    assert archive.test is None


def test_other_arrays_in_the_file_are_left_alone(tmp_path):
    objects = np.array([{"a": 1}], dtype=object)
    names = np.array(["a", "b", "c"])
    np.savez(tmp_path / "d.npz", **small_arrays(), class_names=names, notes=objects)
    assert len(load_npz(tmp_path / "d.npz").train[0]) == 12


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"no file '.*nowhere\.npz'"):
        load_npz(tmp_path / "nowhere.npz")


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04 broken"])
def test_a_file_that_is_no_archive_is_refused(tmp_path, content):
    path = tmp_path / "d.npz"
    path.write_bytes(content)
    with pytest.raises(DataError, match="no NumPy archive"):
        load_npz(path)


def test_a_cut_off_archive_is_refused(tmp_path):
    np.savez(tmp_path / "whole.npz", **small_arrays(1000))
    whole = (tmp_path / "whole.npz").read_bytes()
    (tmp_path / "part.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="no NumPy archive"):
        load_npz(tmp_path / "part.npz")


@pytest.mark.parametrize("at", range(60, 1400, 97))
def test_an_archive_with_a_damaged_stretch_is_refused(tmp_path, at):
    np.savez_compressed(tmp_path / "d.npz", **small_arrays(100))
    content = bytearray((tmp_path / "d.npz").read_bytes())
    assert len(content) > at + 20
    content[at : at + 20] = bytes(byte ^ 0xFF for byte in content[at : at + 20])
    (tmp_path / "d.npz").write_bytes(content)
    with pytest.raises(DataError):
        load_npz(tmp_path / "d.npz")


def test_an_array_that_claims_more_than_memory_holds_is_refused(tmp_path):
    header = "{'descr': '<f4', 'fortran_order': False, 'shape': (10000000000000, 4), }"
    array = b"\x93NUMPY\x01\x00v\x00" + header.ljust(117).encode() + b"\n"
    with zipfile.ZipFile(tmp_path / "d.npz", "w") as archive:
        archive.writestr("x_train.npy", array)
    with pytest.raises(
        DataError, match="'x_train.npy' .* would take 149,011 GiB, and there are 0 bytes"
    ):
        load_npz(tmp_path / "d.npz")


def test_bytes_that_are_no_array_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "d.npz", "w") as archive:
        archive.writestr("x_train", b"hello")
        archive.writestr("y_train", b"there")
    with pytest.raises(DataError, match="'x_train'.*of type"):
        load_npz(tmp_path / "d.npz")


def test_a_single_array_is_refused(tmp_path):
    np.save(tmp_path / "d.npy", np.zeros(3))
    with pytest.raises(DataError, match="no NumPy archive"):
        load_npz(tmp_path / "d.npy")


class Bomb:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (self.path, "w"))


def test_nothing_in_a_file_is_unpickled(tmp_path):
    trace = tmp_path / "trace"
    given = {**small_arrays(), "x_train": np.array([Bomb(str(trace))], dtype=object)}
    np.savez(tmp_path / "d.npz", **given)
    with pytest.raises(DataError, match="objects, which would have to be unpickled"):
        load_npz(tmp_path / "d.npz")
    assert not trace.exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x_train": None, "y_train": None}, "no 'x_train'"),
        ({"y_train": None}, "'x_train' but no 'y_train'"),
        ({"x_val": np.zeros((2, 4))}, "'x_val' but no 'y_val'"),
        ({"y_train": np.zeros(11)}, "12 samples in 'x_train' but 11 labels"),
        ({"x_train": np.zeros((0, 4)), "y_train": np.zeros(0)}, "'x_train'.*is empty"),
        ({"y_train": np.array(["cat"] * 12)}, "'y_train'.*of type <U3"),
        ({"x_train": np.array(1.0), "y_train": np.array(1)}, "'x_train'.*is a single number"),
        ({"x_train": np.zeros((12, 4), complex)}, "'x_train'.*of type complex128"),
        ({"x_valid": np.zeros((2, 4))}, "'x_valid'.*names are"),
    ],
)
def test_a_file_with_wrong_arrays_is_refused_by_their_names(tmp_path, change, message):
    given = {k: v for k, v in {**small_arrays(), **change}.items() if v is not None}
    np.savez(tmp_path / "d.npz", **given)
    with pytest.raises(DataError, match=message):
        load_npz(tmp_path / "d.npz")


def test_inputs_alone_are_enough_where_labels_are_not_needed(tmp_path):
    given = small_arrays()
    np.savez(tmp_path / "d.npz", x_train=given["x_train"])
    x, y = load_npz(tmp_path / "d.npz", labels=False).need("train")
    np.testing.assert_array_equal(x, given["x_train"])
    assert y is None
    np.savez(tmp_path / "d.npz", y_train=given["y_train"])
    with pytest.raises(DataError, match="'y_train' but no 'x_train'"):
        load_npz(tmp_path / "d.npz", labels=False)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_number_that_is_none_is_counted_and_located(tmp_path, value):
    given = small_arrays()
    given["x_train"][7, 2] = value
    np.savez(tmp_path / "d.npz", **given)
    with pytest.raises(DataError, match=r"1 of 12 samples, first in row 7"):
        load_npz(tmp_path / "d.npz")


def test_arrays_of_several_inputs_and_outputs_are_named_behind_a_dot(tmp_path):
    image, table = np.zeros((5, 4, 4, 1)), np.ones((5, 2))
    named = {"x_val.image": image, "x_val.table": table, "y_val": np.arange(5)}
    np.savez(tmp_path / "d.npz", **named)
    x, y = load_npz(tmp_path / "d.npz").need("validation")
    assert set(x) == {"image", "table"} and x["table"].shape == (5, 2)
    np.testing.assert_array_equal(y, np.arange(5))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x_train.a": np.zeros((12, 4))}, "'x_train' and 'x_train.a': give one"),
        ({"y_val": np.zeros(3), "x_val.a": np.zeros((2, 1))}, "2 samples in 'x_val.a' but 3 lab"),
        (
            {"y_val": np.zeros(2), "x_val.a": np.zeros((2, 1)), "x_val.b": np.zeros((3, 1))},
            "2 samples in 'x_val.a' but 3 samples in 'x_val.b'",
        ),
        ({"x_train.": np.zeros((12, 4))}, "holds 'x_train.': the names are"),
    ],
)
def test_named_arrays_that_do_not_fit_are_named(tmp_path, change, message):
    np.savez(tmp_path / "d.npz", **{**small_arrays(), **change})
    with pytest.raises(DataError, match=message):
        load_npz(tmp_path / "d.npz")


def test_a_part_that_is_needed_and_not_there_is_refused_with_how_to_save_it(tmp_path):
    np.savez(tmp_path / "d.npz", x_val=np.zeros((2, 1)), y_val=np.zeros(2))
    archive = load_npz(tmp_path / "d.npz")
    assert archive.train is None
    with pytest.raises(DataError, match=r"holds no 'x_train'.*x_train=…, y_train=…"):
        archive.need("train")
