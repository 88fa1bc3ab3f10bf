"""An exported file is kept when its own runtime computes what the model does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers as L

from saikei.cli import main
from saikei.errors import DataError, InputError, WorkError
from saikei.exporting import ENDINGS, export_model
from saikei.exporting import export as exporting
from saikei.graph import copy_model

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="Keras exports with TF"
)
pytest.importorskip("onnxruntime")
pytest.importorskip("tf2onnx")


class Mixed(L.Layer):
    """Multiplies by its weight, entry by entry and as a matrix."""

    def build(self, shape: Any) -> None:
        self.scale = self.add_weight(shape=(shape[-1],), initializer="uniform", name="scale")
        self.mix = self.add_weight(shape=(shape[-1], 4), initializer="uniform", name="mix")

    def call(self, x: Any) -> Any:
        return keras.ops.matmul(x * self.scale, self.mix)


def images(*augmentation: Any, dtype: str = "float32") -> keras.Model:
    source = keras.Input((6, 6, 3), dtype=dtype)
    tensor = source
    for layer in augmentation:
        tensor = layer(tensor)
    tensor = L.Dropout(0.5)(L.Flatten()(L.Rescaling(0.1)(tensor)))
    return keras.Model(source, L.Dropout(0.5)(L.Dense(2)(tensor)), name="images")


def pairs() -> keras.Model:
    """Two inputs and two outputs of unlike names, and dictionaries of them."""
    source = {"p": keras.Input((3,), name="p"), "a": keras.Input((3,), name="a")}
    difference = L.Subtract()([source["p"], source["a"]])
    return keras.Model(source, {"z": L.Dense(2)(difference), "b": L.Dense(2)(source["a"])})


def sequence() -> keras.Model:
    source = keras.Input((None,), dtype="int32")
    return keras.Model(source, L.Dense(2)(L.GRU(3)(L.Embedding(5, 3)(source))))


def bins() -> keras.Model:
    source = keras.Input((1,))
    layer = L.Discretization(bin_boundaries=[0.0, 1.0], output_mode="one_hot", name="bins")
    return keras.Model(source, L.Dense(2)(layer(source)), name="table")


def words() -> keras.Model:
    layer = L.StringLookup(output_mode="one_hot", name="words")
    layer.adapt(np.array(["red", "green"]))
    source = keras.Input((1,), dtype="string")
    return keras.Model(source, L.Dense(2)(layer(source)), name="texts")


def weighted() -> keras.Model:
    source = keras.Input((4, 6))
    return copy_model(keras.Model(source, L.Dense(2)(Mixed()(source))))


AUGMENTED = {
    "one": lambda: images(L.RandomFlip()),
    "bytes": lambda: images(L.RandomRotation(0.1), dtype="uint8"),
    "pipeline": lambda: images(
        keras.Sequential([L.RandomZoom(0.1)]), L.Pipeline([L.RandomContrast(0.2), L.MixUp()])
    ),
}
MAKERS: dict[str, Callable[[], keras.Model]] = {
    **AUGMENTED,
    "pairs": pairs,
    "sequence": sequence,
    "weighted": weighted,
}


@pytest.mark.sampled
@pytest.mark.parametrize("to", ["onnx", "litert"])
@pytest.mark.parametrize("name", MAKERS)
def test_what_the_runtime_computes_is_what_the_model_does(
    name: str, to: str, tmp_path: Path
) -> None:
    model = MAKERS[name]()
    path = tmp_path / f"net{ENDINGS[to]}"
    exported = export_model(model, path, to)
    assert exported.difference < 1e-5
    assert "max|difference| to the model" in str(exported)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    # LiteRT loops over time in a batch of known size alone.
    assert exported.one_by_one == (name == "sequence" and to == "litert")


@pytest.mark.parametrize("maker", [words, pairs])
def test_a_saved_model_is_run_with_words_too(maker: Any, tmp_path: Path) -> None:
    assert export_model(maker(), tmp_path / "saved", "saved_model").difference < 1e-5


@pytest.mark.parametrize(
    ("maker", "to", "reason"),
    [
        (bins, "onnx", "cannot do the operation Bucketize of 'table_1/bins_1/Bucketize'"),
        (words, "onnx", "cannot do the operation LookupTableFindV2 of 'texts_1/words_1/"),
        (lambda: fourier(), "litert", r"operations of TensorFlow that LiteRT lacks \(.*FFT"),
    ],
)
def test_a_file_that_its_runtime_cannot_run_is_an_error_and_not_left_behind(
    maker: Any, to: str, reason: str, tmp_path: Path
) -> None:
    with pytest.raises(WorkError, match=reason):
        export_model(maker(), tmp_path / f"net{ENDINGS[to]}", to)
    assert not list(tmp_path.iterdir())


def fourier() -> keras.Model:
    source = keras.Input((8,))
    return keras.Model(source, L.Dense(2)(keras.ops.fft((source, source))[0]))


def test_a_file_that_computes_something_else_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime, package, opened = exporting._OPEN["onnx"]

    def wrong(path: Path, model: Any) -> Any:
        run = opened(path, model)
        return lambda inputs: [one + 0.01 for one in run(inputs)]

    monkeypatch.setitem(exporting._OPEN, "onnx", (runtime, package, wrong))
    (tmp_path / "net.onnx").write_bytes(b"as it was")
    with pytest.raises(WorkError, match=r"max\|difference\| 0\.01, where its precision allows"):
        export_model(bins_of_numbers(), tmp_path / "net.onnx", "onnx", overwrite=True)
    assert (tmp_path / "net.onnx").read_bytes() == b"as it was"


def bins_of_numbers() -> keras.Model:
    return keras.Sequential([keras.Input((3,)), L.Dense(2)], name="numbers")


def test_files_are_tried_on_the_data_that_is_given(tmp_path: Path) -> None:
    model = bins_of_numbers()
    x = np.random.default_rng(0).normal(size=(9, 3)).astype("float32")
    assert export_model(model, tmp_path / "a.onnx", "onnx", x).samples == "given"
    with pytest.raises(DataError, match="shape"):
        export_model(model, tmp_path / "b.onnx", "onnx", x[:, :2])
    with pytest.raises(InputError, match="format='tosa' is unknown: use one of litert, onnx"):
        export_model(model, tmp_path / "b.onnx", "tosa")


def test_inputs_by_name_are_enough_for_a_model_whose_inputs_have_another_order(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = [keras.Input((None, 2), name="b"), keras.Input((2,), name="a")]
    # Sequences of a made-up length are too short.
    cropped = L.GlobalAveragePooling1D()(L.Cropping1D(300)(source[0]))
    keras.Model(source, L.Dense(2)(L.Subtract()([cropped, source[1]]))).save(tmp_path / "m.keras")
    # As NumPy has numbers, not as the model takes them.
    x = np.random.default_rng(0).normal(size=(5, 602, 2))
    np.savez(tmp_path / "x.npz", **{"x_test.b": x, "x_test.a": (9 * x[:, 0]).astype(int)})
    out = ["--format", "onnx", "--out", str(tmp_path / "net.onnx"), "--json"]
    assert main(["export", str(tmp_path / "m.keras"), *out]) == 2
    assert "give inputs that it takes, with --data" in capsys.readouterr().err
    assert main(["export", str(tmp_path / "m.keras"), *out, "--data", str(tmp_path / "x.npz")]) == 0
    assert json.loads(capsys.readouterr().out)["samples"] == "given"


def test_weights_that_are_nan_are_named(tmp_path: Path) -> None:
    model = bins_of_numbers()
    model.layers[0].kernel.assign(np.full((3, 2), np.nan))
    with pytest.raises(InputError, match="'kernel' of layer 'dense.*' .* holds NaN"):
        export_model(model, tmp_path / "net.tflite", "litert")


@pytest.mark.long
def test_openvino_runs_its_own_file(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    assert export_model(images(), tmp_path / "net.xml", "openvino").difference < 1e-5


def test_a_missing_runtime_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporting.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        InputError, match=r"which is not installed: pip install 'saikei\[openvino\]'"
    ):
        export_model(bins_of_numbers(), tmp_path / "net.xml", "openvino")


def test_torch_is_exported_to_from_its_own_backend(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    with pytest.raises(InputError, match="KERAS_BACKEND=torch"):
        export_model(images(), tmp_path / "net.pt2", "torch")


def test_the_command_prints_the_difference_and_fails_with_the_operation(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images(L.RandomFlip()).save(tmp_path / "images.keras")
    bins().save(tmp_path / "table.keras")
    out = ["--format", "onnx", "--out", str(tmp_path / "net.onnx")]
    assert main(["export", str(tmp_path / "table.keras"), *out]) == 1
    assert "Bucketize" in capsys.readouterr().err
    assert not (tmp_path / "net.onnx").exists()
    assert main(["export", str(tmp_path / "images.keras"), *out, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["max_difference"] < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("maker", [pairs, weighted])
def test_the_command_exports_to_torch(maker: Any, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    maker().save(tmp_path / "net.keras")
    command = [sys.executable, "-m", "saikei.cli", "export", str(tmp_path / "net.keras"), "--json"]
    command += ["--format", "torch", "--out", str(tmp_path / "net.pt2")]
    environment = {k: v for k, v in os.environ.items() if k != "KERAS_BACKEND"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)
    assert shown["max_difference"] < 1e-5
    assert shown["milliseconds"] > 0
