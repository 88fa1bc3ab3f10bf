"""Files of others are read only when they are what they claim to be, and no larger than that."""

from __future__ import annotations

import io
import json
import struct
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest

from saikei import archives
from saikei.archives import check_memory
from saikei.errors import DataError, InputError, ModelError
from saikei.merging import merge_files
from saikei.modelfile import load_model
from saikei.npz import load_npz

# What no file of this size may take: each of these would take 256 MiB or more.
MOST = 32 * archives.MIB
HUGE = 1 << 26


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("archives") / "net.keras"
    keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="dense")]).save(path)
    return path


def repacked(
    source: Path,
    target: Path,
    change: Callable[[str, bytes], bytes],
    compression: int = zipfile.ZIP_STORED,
) -> Path:
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", compression) as new:
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))
    return target


def with_weights(source: Path, target: Path, edit: Callable[[h5py.File], None]) -> Path:
    """A model file whose weights are edited in HDF5."""

    def change(name: str, content: bytes) -> bytes:
        if not name.endswith(".h5"):
            return content
        buffer = io.BytesIO(content)
        with h5py.File(buffer, "r+") as file:
            edit(file)
        return buffer.getvalue()

    return repacked(source, target, change)


KERNEL = "layers/dense/vars/0"


def unwritten(file: h5py.File) -> None:
    del file[KERNEL]
    file.create_dataset(KERNEL, (HUGE,), np.float32)


def compressed(file: h5py.File) -> None:
    file.create_dataset("zeros", (HUGE,), np.float32, chunks=(1 << 20,), compression="gzip")
    for start in range(0, 1 << 23, 1 << 20):
        file["zeros"][start : start + (1 << 20)] = 0


def soft(file: h5py.File) -> None:
    file["other"] = file[KERNEL]
    del file[KERNEL]
    file[KERNEL] = h5py.SoftLink("/other")


def external(file: h5py.File) -> None:
    del file[KERNEL]
    file[KERNEL] = h5py.ExternalLink("/etc/weights.h5", "/other")


def raw(file: h5py.File) -> None:
    del file[KERNEL]
    file.create_dataset(KERNEL, (4, 3), np.float32, external=[("/etc/passwd", 0, 48)])


def virtual(file: h5py.File) -> None:
    del file[KERNEL]
    layout = h5py.VirtualLayout((4, 3), np.float32)
    layout[:] = h5py.VirtualSource("/etc/weights.h5", "other", (4, 3))
    file.create_virtual_dataset(KERNEL, layout)


HOSTILE = [
    (unwritten, "would unpack to 256 MiB from 0 bytes"),
    (compressed, "'zeros' would unpack to 256 MiB"),
    (soft, "a link to other data"),
    (external, "a link to other data"),
    (raw, "kept in another file"),
    (virtual, "kept in another file"),
]


def peak_of(action: Callable[[], Any]) -> int:
    tracemalloc.start()
    try:
        action()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def refused(action: Callable[[], Any], kind: type[InputError], message: str) -> None:
    """Refused by name, on one line, before any large piece of memory is taken."""

    def attempt() -> None:
        with pytest.raises(kind, match=message) as refusal:
            action()
        assert "\n" not in str(refusal.value)

    assert peak_of(attempt) < MOST


@pytest.mark.parametrize(("edit", "message"), HOSTILE, ids=[e.__name__ for e, _ in HOSTILE])
def test_weights_that_grow_or_lie_elsewhere_are_neither_loaded_nor_merged(
    saved: Path, tmp_path: Path, edit: Callable[[h5py.File], None], message: str
) -> None:
    path = with_weights(saved, tmp_path / "net.keras", edit)
    refused(lambda: load_model(path), ModelError, message)
    refused(lambda: merge_files([path, path], tmp_path / "o.keras"), ModelError, message)
    alone = tmp_path / "net.weights.h5"
    with zipfile.ZipFile(path) as archive:
        alone.write_bytes(archive.read("model.weights.h5"))
    refused(lambda: merge_files([alone, alone], tmp_path / "o.weights.h5"), ModelError, message)


@pytest.mark.parametrize("name", ["model.weights.h5", "config.json", "assets/vocabulary.txt"])
def test_an_archive_that_unpacks_to_a_thousand_times_its_size_is_not_unpacked(
    saved: Path, tmp_path: Path, name: str
) -> None:
    path = tmp_path / "net.keras"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new, zipfile.ZipFile(saved) as old:
        for member in old.namelist():
            if member != name:
                new.writestr(member, old.read(member))
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as new, new.open(name, "w") as member:
        for _ in range(80):
            member.write(bytes(archives.MIB))
    refused(lambda: load_model(path), ModelError, "would unpack to 80 MiB from")
    refused(lambda: merge_files([path, path], tmp_path / "o.keras"), ModelError, "would unpack to")


def leave_a_stateless_scope() -> None:
    """Keras makes the variables then that are still to be made."""
    with keras.StatelessScope():
        pass


def test_a_config_that_declares_what_is_not_there_is_not_built(saved: Path, tmp_path: Path) -> None:
    def change(name: str, content: bytes) -> bytes:
        return (
            content.replace(b'"units": 3', b'"units": 100000000') if "config" in name else content
        )

    path = repacked(saved, tmp_path / "net.keras", change)
    message = r"config\.json declares 1 GiB of weights, and \d+ bytes are there"
    refused(lambda: load_model(path), ModelError, message)
    # What was declared and not made is not made later either.
    assert peak_of(leave_a_stateless_scope) < MOST


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("member", ["model.weights.h5", "config.json"])
def test_a_flipped_bit_is_found_by_its_checksum(
    saved: Path, tmp_path: Path, compression: int, member: str
) -> None:
    path = repacked(saved, tmp_path / "net.keras", lambda _, content: content, compression)
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo(member)
    content[info.header_offset + 30 + len(member) + info.compress_size // 2] ^= 1
    path.write_bytes(content)
    message = f"its '{member}' is damaged"
    refused(lambda: load_model(path), ModelError, message)
    refused(lambda: merge_files([saved, path], tmp_path / "o.keras"), ModelError, message)


def test_a_checksum_in_hdf5_is_compared_when_files_merge(tmp_path: Path) -> None:
    array = np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32)
    paths = [tmp_path / f"{number}.weights.h5" for number in range(2)]
    for path in paths:
        with h5py.File(path, "w") as file:
            file.create_dataset("k", data=array, chunks=(64, 64), fletcher32=True)
    content = bytearray(paths[1].read_bytes())
    content[content.index(array.tobytes()[:64]) + 8000] ^= 1
    paths[1].write_bytes(content)
    with pytest.raises(ModelError, match=r"Tensor 'k' in '.*1\.weights\.h5' is damaged"):
        merge_files(paths, tmp_path / "o.weights.h5")
    assert not (tmp_path / "o.weights.h5").exists()


def safetensors(header: dict[str, Any], data: bytes) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (
            {n: {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]} for n in "ab"},
            "overlap: it is damaged",
        ),
        (
            {"a": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 1 << 42]}},
            "is outside the file",
        ),
        (
            {"a": {"dtype": "F32", "shape": [1 << 62, 0], "data_offsets": [0, 0]}},
            "cannot be read",
        ),
    ],
)
def test_a_header_that_promises_more_than_the_file_holds_is_refused(
    tmp_path: Path, header: dict[str, Any], message: str
) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(safetensors(header, bytes(16)))
    refused(lambda: merge_files([path, path], tmp_path / "o.safetensors"), ModelError, message)


def test_data_that_unpacks_to_a_thousand_times_its_size_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "d.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(
            header, {"descr": "<f4", "fortran_order": False, "shape": (80 << 20,)}
        )
        with archive.open("x_train.npy", "w") as member:
            member.write(header.getvalue())
            for _ in range(320):
                member.write(bytes(archives.MIB))
    refused(lambda: load_npz(path), DataError, "would unpack to 320 MiB from .* uncompressed")


def test_data_that_compresses_well_is_read(tmp_path: Path) -> None:
    x = np.zeros((1000, 1000), np.float32)
    np.savez_compressed(tmp_path / "d.npz", x_train=x, y_train=np.zeros(1000))
    train = load_npz(tmp_path / "d.npz").need("train")
    np.testing.assert_array_equal(train[0], x)


def test_what_does_not_fit_into_memory_is_refused() -> None:
    check_memory(1, "It", DataError)
    with pytest.raises(DataError, match=r"It needs 1,024 GiB of memory, and \d+ \w+ are free"):
        check_memory(1 << 40, "It", DataError)


def test_a_name_that_stands_twice_in_an_archive_is_refused(saved: Path, tmp_path: Path) -> None:
    path = repacked(saved, tmp_path / "net.keras", lambda _, content: content)
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("config.json", "{}")
    refused(lambda: load_model(path), ModelError, r"holds 'config\.json' 2 times")


def test_a_sparse_model_that_was_compressed_again_is_read(saved: Path, tmp_path: Path) -> None:
    path = repacked(saved, tmp_path / "z.keras", lambda _, c: c, zipfile.ZIP_DEFLATED)
    for one, other in zip(load_model(path).weights, load_model(saved).weights, strict=True):
        np.testing.assert_array_equal(one, other)
