"""Files merged tensor by tensor have the bits of models merged in memory."""

from __future__ import annotations

import json
import struct
import sys
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import h5py
import keras
import ml_dtypes
import numpy as np
import pytest
from keras import layers as L

from saikei.errors import FusionError, InputError, ModelError, SaikeiError, WorkError
from saikei.fusion import Soup
from saikei.graph import copy_model
from saikei.merging import Dare, Ema, Linear, ModelStock, Slerp, TaskArithmetic, Ties, files
from saikei.merging.streaming import merge_files

ENDINGS = (".keras", ".weights.h5", ".safetensors")
METHODS: list[tuple[Any, bool]] = [
    ("uniform", False),
    (Linear((0.2, 0.8)), False),
    (Slerp(0.3), False),
    (Ema(0.7), False),
    (Ties(0.4), True),
    (Dare(0.5, seed=3), True),
    (ModelStock(), True),
    (TaskArithmetic(0.4), True),
]


def network() -> keras.Model:
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 3))
    y = L.Conv2D(6, 3, activation="relu")(inputs)
    y = L.LayerNormalization()(y)
    y = L.Dropout(0.2)(L.Flatten()(y))
    y = L.Dense(5, dtype="bfloat16")(y)
    return keras.Model(inputs, L.Dense(3, "softmax")(y))


def near(model: keras.Model, seed: int) -> keras.Model:
    other, generator = copy_model(model), np.random.default_rng(seed)
    for weight in other.weights:
        step = 0.02 * generator.standard_normal(weight.shape)
        weight.assign(keras.ops.convert_to_numpy(weight).astype(np.float64) + step)
    return other


@pytest.fixture(scope="module")
def models() -> list[keras.Model]:
    base = network()
    return [near(base, 1), near(base, 2), base]


def numbers(model: keras.Model) -> list[np.ndarray]:
    return [np.asarray(keras.ops.convert_to_numpy(w)) for w in model.weights]


def write_safetensors(path: Path, tensors: dict[str, np.ndarray]) -> None:
    names = {"float32": "F32", "float16": "F16", "bfloat16": "BF16", "int64": "I64"}
    header, at = {}, 0
    for name, array in tensors.items():
        header[name] = {
            "dtype": names[str(array.dtype)],
            "shape": list(array.shape),
            "data_offsets": [at, at + array.nbytes],
        }
        at += array.nbytes
    text = json.dumps(header).encode()
    body = b"".join(array.tobytes() for array in tensors.values())
    path.write_bytes(struct.pack("<Q", len(text)) + text + body)


def save(model: keras.Model, path: Path) -> Path:
    if path.name.endswith(".keras"):
        model.save(path)
    elif path.name.endswith(".weights.h5"):
        model.save_weights(path)
    else:
        write_safetensors(
            path, {w.path: a for w, a in zip(model.weights, numbers(model), strict=True)}
        )
    return path


def load(path: Path, like: keras.Model) -> list[np.ndarray]:
    if path.name.endswith(".keras"):
        return numbers(keras.saving.load_model(path))
    if path.name.endswith(".weights.h5"):
        model = copy_model(like)
        model.load_weights(path)
        return numbers(model)
    with files.open_store(path) as store:
        return [np.array(store.array(weight.path)) for weight in like.weights]


@pytest.mark.sampled
@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize(("method", "needs"), METHODS)
def test_merged_files_have_the_bits_of_merged_models(
    tmp_path: Path, models: list[keras.Model], ending: str, method: Any, needs: bool
) -> None:
    paths = [save(model, tmp_path / f"m{n}{ending}") for n, model in enumerate(models)]
    made = merge_files(
        paths[:2], tmp_path / f"out{ending}", method, base=paths[2] if needs else None
    )
    soup = Soup(method, base=models[2] if needs else None, check=False)(models[:2])
    found, expected = load(made.path, models[0]), numbers(soup)
    if isinstance(method, Dare):
        # What is dropped goes by the names of tensors, which files have others for.
        expected = found
        assert not all(np.array_equal(a, b) for a, b in zip(found, numbers(models[0]), strict=True))
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)
    assert made.correlation is not None and made.correlation > 0.9
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(
        [*(p.name for p in paths), f"out{ending}"]
    )


def test_a_merged_keras_file_is_a_model_that_predicts(
    tmp_path: Path, models: list[keras.Model]
) -> None:
    compiled = copy_model(models[0])
    compiled.compile("adam", "mse")
    compiled.fit(np.zeros((4, 8, 8, 3)), np.zeros((4, 3)), verbose=0)
    paths = [save(compiled, tmp_path / "a.keras"), save(models[1], tmp_path / "b.keras")]
    made = merge_files(paths, tmp_path / "c.keras")
    model = keras.saving.load_model(made.path)
    assert not model.compiled
    assert np.isfinite(model.predict_on_batch(np.ones((2, 8, 8, 3)))).all()
    with zipfile.ZipFile(made.path) as archive:
        assert archive.testzip() is None
        assert "compile_config" not in json.loads(archive.read("config.json"))
    assert made.to_dict()["tensors"] == made.tensors > 6


def test_vocabularies_are_carried_over_and_have_to_be_the_same(tmp_path: Path) -> None:
    def made(words: list[str], name: str, activation: str = "relu") -> Path:
        inputs = keras.Input((1,), dtype="string")
        (tmp_path / f"{name}.txt").write_text("\n".join(words))
        lookup = L.StringLookup(vocabulary=str(tmp_path / f"{name}.txt"))
        embedded = L.Embedding(9, 4)(lookup(inputs))
        keras.Model(inputs, L.Dense(2, activation)(embedded)).save(tmp_path / name)
        return tmp_path / name

    keras.utils.set_random_seed(0)
    a, b = made(["x", "y"], "a.keras"), made(["x", "y"], "b.keras")
    merge_files([a, b], tmp_path / "c.keras", check=False)
    with zipfile.ZipFile(a) as old, zipfile.ZipFile(tmp_path / "c.keras") as new:
        assert sorted(old.namelist()) == sorted(new.namelist())
    assert keras.saving.load_model(tmp_path / "c.keras").count_params() == 46
    with pytest.raises(FusionError, match="other assets"):
        merge_files([a, made(["x", "z"], "d.keras")], tmp_path / "e.keras", check=False)
    with pytest.raises(FusionError, match="other settings"):
        merge_files([a, made(["x", "y"], "f.keras", "tanh")], tmp_path / "e.keras", check=False)


def test_networks_of_other_seeds_are_refused_by_name(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    for name in ("a", "b"):
        tensors = {"k": generator.standard_normal((300, 40)).astype(np.float32)}
        write_safetensors(tmp_path / f"{name}.safetensors", tensors)
    paths = [tmp_path / "a.safetensors", tmp_path / "b.safetensors"]
    with pytest.raises(FusionError, match=r"b\.safetensors' do not correlate.*check=False"):
        merge_files(paths, tmp_path / "c.safetensors")
    assert not (tmp_path / "c.safetensors").exists()
    assert merge_files(paths, tmp_path / "c.safetensors", check=False).correlation is None


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_tensors_of_every_precision_shape_and_place_are_merged(tmp_path: Path, dtype: Any) -> None:
    generator = np.random.default_rng(0)
    shapes = {"odd": (3,), "none": (0, 4), "one": (), "large": (700, 500)}
    members = [
        {name: generator.standard_normal(shape).astype(dtype) for name, shape in shapes.items()}
        for _ in range(3)
    ]
    for number, member in enumerate(members):
        # Tensors behind three halves do not begin at a multiple of four bytes.
        write_safetensors(tmp_path / f"{number}.safetensors", {**member, "step": np.arange(3)})
    paths = [tmp_path / f"{number}.safetensors" for number in range(3)]
    made = merge_files(paths, tmp_path / "out.safetensors", check=False)
    assert made.kept == ("step",)
    with files.open_store(made.path) as store:
        for name in shapes:
            wide = np.stack([np.float64(member[name]) for member in members])
            np.testing.assert_array_equal(store.array(name), wide.mean(axis=0).astype(dtype))
        np.testing.assert_array_equal(store.array("step"), np.arange(3))


def test_files_that_hold_other_tensors_are_refused_by_name(tmp_path: Path) -> None:
    def made(name: str, **tensors: np.ndarray) -> Path:
        write_safetensors(tmp_path / name, tensors)
        return tmp_path / name

    one, out = np.ones((2, 3), np.float32), tmp_path / "out.safetensors"
    a = made("a.safetensors", k=one, n=np.arange(2))
    for other, message in [
        (made("b.safetensors", k=one), "other tensors .'n' is in one"),
        (made("c.safetensors", k=one.T.copy(), n=np.arange(2)), r"Tensor 'k' is float32 of \(2, 3"),
        (made("d.safetensors", k=one.astype(np.float16), n=np.arange(2)), "and float16 of"),
        (made("e.safetensors", k=one, n=np.arange(2) + 1), "Tensor 'n' is int64 and differs"),
        (made("f.safetensors", k=one * np.nan, n=np.arange(2)), "Tensor 'k'.*not finite"),
    ]:
        with pytest.raises(FusionError, match=message):
            merge_files([a, other], out, check=False)
        assert not out.exists() and not list(tmp_path.glob(".draft*"))


def test_arguments_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    write_safetensors(tmp_path / "a.safetensors", {"k": np.ones((2, 2), np.float32)})
    a, out = tmp_path / "a.safetensors", tmp_path / "out.safetensors"
    (tmp_path / "there.safetensors").write_bytes(b"mine")
    cases: list[tuple[Any, dict[str, Any], type[SaikeiError], str]] = [
        (([a, a], out, "greedy"), {}, FusionError, "Greedy is fitted to data"),
        (([a], out), {}, FusionError, "at least two files, got 1"),
        (([a, a], out, "ties"), {}, FusionError, "Ties needs the file of a base"),
        (([a, a], out), {"base": a}, FusionError, "Linear needs no base"),
        (([a, a, a], out, "slerp"), {}, FusionError, "between two models, got 3"),
        (([a, a], tmp_path / "out.keras"), {}, FusionError, "are mixed"),
        (([a, tmp_path / "b.bin"], out), {}, ModelError, "no known format"),
        (([a, tmp_path / "no.safetensors"], out), {}, ModelError, "There is no file"),
        (([a, a], tmp_path / "there.safetensors"), {}, InputError, "exists"),
        (([a, a], tmp_path / "no" / "out.safetensors"), {}, InputError, "no folder"),
    ]
    for arguments, named, kind, message in cases:
        with pytest.raises(kind, match=message):
            merge_files(*arguments, **named)
    assert (tmp_path / "there.safetensors").read_bytes() == b"mine"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff" * 40,
        struct.pack("<Q", 2) + b"[]",
        struct.pack("<Q", 2) + b"{{",
        struct.pack("<Q", 20) + b'{"k": {"shape": 1}} ',
        struct.pack("<Q", 56) + b'{"k":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}} ',
        struct.pack("<Q", 56)
        + b'{"k":{"dtype":"F32","shape":[3],"data_offsets":[0,16]}} '
        + b"0" * 16,
    ],
)
def test_damaged_safetensors_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"a\.safetensors'"):
        merge_files([path, path], tmp_path / "b.safetensors")


@pytest.mark.parametrize("ending", [".keras", ".weights.h5"])
def test_what_is_no_file_of_its_kind_is_refused(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"a{ending}"
    path.write_bytes(b"no such thing")
    with pytest.raises(ModelError, match="is no "):
        merge_files([path, path], tmp_path / f"b{ending}")


def test_numbers_that_lie_in_pieces_are_read_and_those_elsewhere_are_not(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    arrays = [generator.standard_normal((40, 30)).astype(np.float32) for _ in range(2)]
    for number, array in enumerate(arrays):
        with h5py.File(tmp_path / f"{number}.weights.h5", "w") as file:
            file.create_dataset("layers/dense/vars/0", data=array, compression="gzip")
    paths = [tmp_path / f"{number}.weights.h5" for number in range(2)]
    merge_files(paths, tmp_path / "out.weights.h5", check=False)
    with h5py.File(tmp_path / "out.weights.h5") as file:
        mean = np.mean(np.float64(arrays), axis=0).astype(np.float32)
        np.testing.assert_array_equal(file["layers/dense/vars/0"][()], mean)
    with h5py.File(tmp_path / "x.weights.h5", "w") as file:
        elsewhere = [(str(tmp_path / "raw"), 0, 4800)]
        file.create_dataset("k", (40, 30), np.float32, external=elsewhere)
    with pytest.raises(ModelError, match="kept in another file"):
        merge_files([tmp_path / "x.weights.h5"] * 2, tmp_path / "y.weights.h5", check=False)


def test_a_disk_that_fails_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_safetensors(tmp_path / "a.safetensors", {"k": np.ones((2, 2), np.float32)})
    out = tmp_path / "out.safetensors"
    out.write_bytes(b"before")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(sys.modules["saikei.merging.streaming"], "_write", full)
    with pytest.raises(WorkError, match="make room"):
        merge_files([tmp_path / "a.safetensors"] * 2, out, overwrite=True)
    assert out.read_bytes() == b"before"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.safetensors", "out.safetensors"]


def test_no_more_than_a_tensor_of_each_member_is_held(tmp_path: Path) -> None:
    shape, count = (256, 1024), 24
    for number in range(2):
        tensors = {f"k{n}": np.full(shape, number + n, np.float32) for n in range(count)}
        write_safetensors(tmp_path / f"{number}.safetensors", tensors)
    paths = [tmp_path / f"{number}.safetensors" for number in range(2)]
    tracemalloc.start()
    merge_files(paths, tmp_path / "out.safetensors", check=False)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # Views of files are no memory of Python's; what is worked on are blocks.
    assert peak < 3 * 2 * 4 * shape[0] * shape[1]
    with files.open_store(tmp_path / "out.safetensors") as store:
        assert all(float(store.array(f"k{n}")[0, 0]) == n + 0.5 for n in range(count))


@pytest.mark.filterwarnings("error")
def test_counters_stay_the_first_files_and_tables_of_whole_numbers_have_to_agree(
    tmp_path: Path,
) -> None:
    kernel = np.random.default_rng(0).integers(-9, 9, (8, 8)).astype(np.float32)
    for count in (3, 5):
        tensors = {
            "kernel": kernel + count,
            "none": np.zeros((0, 4), np.float32),
            "num_batches_tracked": np.array(count),
            "table": np.array([1, 2]),
        }
        write_safetensors(tmp_path / f"{count}.safetensors", tensors)
    paths = [tmp_path / "3.safetensors", tmp_path / "5.safetensors"]
    merge_files(paths, tmp_path / "out.safetensors")
    with files.open_store(tmp_path / "out.safetensors") as merged:
        assert merged.array("num_batches_tracked") == 3
        np.testing.assert_array_equal(merged.array("kernel"), (kernel + 3 + kernel + 5) / 2)
    write_safetensors(paths[1], {**tensors, "table": np.array([1, 3])})
    with pytest.raises(FusionError, match="'table' is int64 and differs"):
        merge_files(paths, tmp_path / "other.safetensors")
