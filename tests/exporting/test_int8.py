"""int8 files: what LiteRT's interpreter computes with them, and what they weigh."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers

from saikei.cli import main
from saikei.errors import InputError, WorkError
from saikei.exporting import export_int8
from saikei.exporting.int8 import PACKAGE
from saikei.modelfile import load_model

needs_package = pytest.mark.skipif(
    importlib.util.find_spec(PACKAGE) is None
    or importlib.util.find_spec("tensorflow") is None
    or keras.backend.backend() != "tensorflow",
    reason="LiteRT files are quantized by ai-edge-quantizer, and written from TensorFlow",
)


def convolutional() -> keras.Model:
    keras.utils.set_random_seed(0)
    image = keras.Input((8, 8, 2), name="image")
    y = layers.Conv2D(16, 3, activation="relu")(image)
    y = layers.BatchNormalization()(y)
    y = layers.MaxPooling2D()(y)
    y = layers.Conv2D(32, 3, activation="relu")(y)
    return keras.Model(image, layers.Dense(5, activation="softmax")(layers.Flatten()(y)))


def two_inputs_and_outputs() -> keras.Model:
    keras.utils.set_random_seed(0)
    a, b = keras.Input((12,), name="left"), keras.Input((7,), name="right")
    y = layers.Concatenate()([layers.Dense(64, "relu")(a), layers.Dense(64, "relu")(b)])
    y = layers.Dense(64, "relu")(y)
    return keras.Model(
        {"left": a, "right": b}, [layers.Dense(3, name="three")(y), layers.Dense(1, name="one")(y)]
    )


@needs_package
@pytest.mark.parametrize(
    ("make", "loaded"),
    [
        (convolutional, True),
        pytest.param(two_inputs_and_outputs, False, marks=pytest.mark.long),
        pytest.param(convolutional, False, marks=pytest.mark.long),
        pytest.param(two_inputs_and_outputs, True, marks=pytest.mark.long),
    ],
)
def test_an_int8_file_is_smaller_and_gives_nearly_the_same(
    make: object, loaded: bool, tmp_path: Path
) -> None:
    model = make()  # type: ignore[operator]
    if loaded:
        model.save(tmp_path / "model.keras")
        model = load_model(tmp_path / "model.keras")
    rng = np.random.default_rng(1)
    x = keras.tree.map_structure(
        lambda one: rng.normal(size=(40, *one.shape[1:])).astype("float32"), model.input
    )
    made = export_int8(model, tmp_path / "small.tflite", x)
    assert made.bytes == (tmp_path / "small.tflite").stat().st_size
    weights = sum(w.nbytes for w in model.get_weights())
    # A quarter of the weights, and what every file holds.
    assert made.bytes < 0.25 * weights + 12_000
    exact = keras.tree.flatten(model.predict_on_batch(x))
    for ours, theirs in zip(made.run(x), exact, strict=True):
        theirs = np.asarray(theirs)
        assert ours.shape == theirs.shape
        assert ours.dtype == np.float32
        apart = np.abs(ours - theirs).max() / np.ptp(theirs)
        # int8 rounds, and rounds by no more than that.
        assert 0 < apart < 0.1


@pytest.mark.long
@needs_package
def test_what_cannot_be_written_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    model = convolutional()
    with pytest.raises(InputError, match=r"\.tflite"):
        export_int8(model, tmp_path / "small.onnx", np.zeros((4, 8, 8, 2), "float32"))
    text = keras.Sequential([keras.Input((1,), dtype="string"), layers.TextVectorization()])
    text.layers[0].adapt(["a b", "c"])
    with pytest.raises((WorkError, InputError)):
        export_int8(text, tmp_path / "text.tflite", np.array([["a"]]))
    assert not list(tmp_path.iterdir())


def test_without_the_package_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'saikei\[int8\]'"):
        export_int8(convolutional(), tmp_path / "small.tflite", np.zeros((4, 8, 8, 2), "float32"))


@pytest.mark.long
@needs_package
def test_the_command_line_writes_an_int8_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # A Sequential model that is loaded does not know its outputs.
    keras.Sequential([keras.Input((8, 8, 2)), *convolutional().layers[1:]]).save(
        tmp_path / "model.keras"
    )
    x = np.random.default_rng(0).normal(size=(20, 8, 8, 2)).astype("float32")
    np.savez(tmp_path / "data.npz", x_train=x, y_train=np.zeros(20, "int64"))
    made = tmp_path / "small.tflite"
    command = ["export", str(tmp_path / "model.keras"), "--out", str(made), "--quantize", "int8"]
    assert main([*command, "--data", str(tmp_path / "data.npz"), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["bytes"] == made.stat().st_size
    assert shown["milliseconds"] > 0
    assert shown["file"]["n"] == shown["model"]["n"] == 20
    assert shown["file"]["value"] == pytest.approx(shown["model"]["value"], abs=0.2)
    for wrong in ([*command, "--overwrite"], [*command, "--format", "onnx"]):
        assert main(wrong) == 2
        assert "--quantize writes LiteRT files" in capsys.readouterr().err
