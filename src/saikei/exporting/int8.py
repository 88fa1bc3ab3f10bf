"""`export_int8`: a model as a LiteRT file with int8 weights and activations."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import tree

from saikei.costs import machine
from saikei.errors import InputError, WorkError, in_one_line
from saikei.exporting.check import milliseconds, trial
from saikei.exporting.export import ENDINGS, export_model
from saikei.exporting.runtimes import Run, litert_samples, open_litert
from saikei.hub import without_preprocessor
from saikei.scoring.inference import Inference
from saikei.scoring.labelled import Labelled
from saikei.scoring.score import Score
from saikei.writing import check_target, draft_folder, write_whole

# Samples that the ranges of activations are taken from. More change the ranges little.
CALIBRATION_ROWS = 256
# Rows that a file is scored on.
SCORED_ROWS = 1000
PACKAGE = "ai_edge_quantizer"


@dataclass(frozen=True)
class Int8File:
    """A LiteRT file with int8 weights and activations; its inputs and outputs are floats.

    Args:
        path: Path of the file.
        bytes: The size of the file in bytes.
        run: A function that predicts with the file, in LiteRT's own interpreter: inputs as the
            model takes them, outputs flattened to a list.
        milliseconds: Median time of one sample in LiteRT, on this machine.
    """

    path: Path
    bytes: int
    run: Run = field(repr=False)
    milliseconds: float

    def to_dict(self) -> dict[str, Any]:
        """Path, size and time as values that fit into JSON."""
        return {
            "out": str(self.path),
            "format": "litert",
            "dtype": "int8",
            "bytes": self.bytes,
            "milliseconds": self.milliseconds,
            "machine": machine(),
        }

    def __str__(self) -> str:
        return (
            f"{self.path}: litert with int8 weights and activations, {self.bytes:,} bytes; "
            f"{self.milliseconds:.3g} ms for one sample on {machine()}. Its outputs differ from "
            "those of the model, so score it on other data before you ship it."
        )


def export_int8(
    model: keras.Model, path: str | Path, data: Any, overwrite: bool = False
) -> Int8File:
    """Export a model to LiteRT, and quantize weights and activations to int8.

    The scales of weights are one for each channel; the ranges of activations are the smallest and
    largest values that the first 256 samples of the data lead to. Operations that LiteRT has no
    int8 kernel for stay as they are. The float file is checked against the model; how far the int8
    file is from it depends on the model, so score it: `run` predicts in LiteRT's interpreter.

    Args:
        model: A built model; it is not changed.
        path: Path of the `.tflite` file to write.
        data: Inputs for the ranges, as the model takes them; training data, for example.
        overwrite: Whether an existing file may be replaced.

    Raises:
        InputError: If the package `ai-edge-quantizer` is missing, or the path cannot be written to.
        WorkError: If the model cannot be exported or quantized. Nothing is left behind then.
    """
    path = check_target(Path(path), ENDINGS["litert"], overwrite)
    check_int8_available()
    model = without_preprocessor(model)
    inputs = trial(model, data, CALIBRATION_ROWS)[0]
    with draft_folder(path.parent) as folder:
        float_file = folder / "float.tflite"
        export_model(model, float_file, "litert", inputs)
        content = _quantized(model, float_file, inputs)
    write_whole(path, lambda draft: draft.write_bytes(content))
    run = open_litert(path, model)
    return Int8File(path, len(content), run, milliseconds(run, inputs))


def compare_scores(
    model: keras.Model, run: Run, x: Any, y: Any, rows: int = SCORED_ROWS
) -> tuple[Score, Score]:
    """The scores of a model and of a file that was made from it, on the same rows.

    Args:
        model: The model.
        run: Runs the file in its own runtime, as `Int8File.run`.
        x: Inputs as the model takes them.
        y: Their labels.
        rows: How many of the rows are scored, since a file may take them one by one.
    """
    inputs, model_outputs = trial(model, x, rows)
    inference = Inference(model)
    labels = tree.map_structure(lambda leaf: np.asarray(leaf)[:rows], y)
    judge = Labelled.of(inference.tasks(labels), inference.labels(labels), model_outputs)
    return judge.score(model_outputs), judge.score(run(inputs))


def int8_available() -> bool:
    """Whether Keras runs on TensorFlow, from which LiteRT files are written, and can quantize."""
    on_tensorflow = keras.backend.backend() == "tensorflow"
    return on_tensorflow and importlib.util.find_spec(PACKAGE) is not None


def check_int8_available() -> None:
    """Refuse where the package that quantizes LiteRT files is missing."""
    if not int8_available():
        raise InputError(
            "int8 files are written on the TensorFlow backend by the package ai-edge-quantizer, "
            "which is not installed: pip install 'saikei[int8]'."
            if keras.backend.backend() == "tensorflow"
            else "int8 files are written on the TensorFlow backend alone: set KERAS_BACKEND."
        )


def _quantized(model: keras.Model, float_file: Path, inputs: Any) -> bytes:
    try:
        # It shows progress bars and sizes on both streams.
        with (
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")
            return _by_package(model, float_file, inputs)
    # The package raises whatever its parts do.
    except Exception as error:
        raise WorkError(
            f"Model '{model.name}' cannot be quantized to int8: {in_one_line(error)}."
        ) from error


def _by_package(model: keras.Model, float_file: Path, inputs: Any) -> bytes:
    from ai_edge_quantizer import calibrator, qtyping, quantizer, recipe_manager
    from ai_edge_quantizer.utils import qsv_utils

    recipes = recipe_manager.RecipeManager()
    names = qtyping.TFLOperationName
    recipes.add_static_config(
        regex=".*",
        operation_name=names.ALL_SUPPORTED,
        activation_num_bits=8,
        weight_num_bits=8,
    )
    # Whoever runs the file gives and gets floats, as with the model.
    for end in (names.INPUT, names.OUTPUT):
        recipes.add_quantization_config(regex=".*", operation_name=end, algorithm_key="no_quantize")
    # By default the package averages over samples, which cuts large activations off.
    ranges = calibrator.Calibrator(str(float_file), 1, qsv_update_func=qsv_utils.min_max_update)
    ranges.calibrate(litert_samples(float_file, model, inputs), recipes)
    made = quantizer.Quantizer(str(float_file))
    made.load_quantization_recipe(recipes.get_quantization_recipe())
    return bytes(made.quantize(ranges.get_model_qsvs()).quantized_model)
