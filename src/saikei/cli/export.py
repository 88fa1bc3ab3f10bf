"""`saikei export`: convert a model for a runtime other than Keras."""

from __future__ import annotations

import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from saikei.cli.data import optional_data
from saikei.cli.options import DivideBy, Json, Label, ModelFile, Overwrite, refuse_typed
from saikei.cli.output import import_keras, print_json, print_text
from saikei.errors import InputError

if TYPE_CHECKING:
    import keras

    from saikei.npz import Archive


class Format(StrEnum):
    """Formats of the runtimes that files are exported to."""

    KERAS = "keras"
    LITERT = "litert"
    ONNX = "onnx"
    OPENVINO = "openvino"
    SAVED_MODEL = "saved_model"
    TORCH = "torch"


class Quantize(StrEnum):
    """Types that weights and activations are quantized to."""

    INT8 = "int8"


def export(
    context: typer.Context,
    model: ModelFile,
    out: Annotated[
        Path,
        typer.Option(
            help="File to write (.tflite, .onnx, .xml, .pt2, .keras), or the folder of a "
            "SavedModel or a preset of KerasHub."
        ),
    ],
    to: Annotated[Format, typer.Option("--format", help="The runtime's format.")] = Format.LITERT,
    data: Annotated[
        str | None,
        typer.Option(
            help="An .npz file with x_test, x_val or x_train, the first of which is what file and "
            "model are compared on; or a folder of images, a table or module:function. Default: "
            "random inputs."
        ),
    ] = None,
    label: Label = None,
    divide_by: DivideBy = None,
    original: Annotated[
        Path | None,
        typer.Option(
            help="For --format keras: the model of KerasHub, a .keras file or a preset, that "
            "MODEL.keras was cut from. The result is of its class, with its preprocessor."
        ),
    ] = None,
    quantize: Annotated[
        Quantize | None,
        typer.Option(
            help="Quantize weights and activations (LiteRT only); needs --data, whose inputs give "
            "the ranges of activations, and whose labels score the file in LiteRT.",
        ),
    ] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Export a model to LiteRT, ONNX, OpenVINO, PyTorch or a TensorFlow SavedModel; check the file.

    The file is run in its own runtime, and kept if its outputs are those of the model.
    With --format keras, a model that was cut from one of KerasHub becomes one of its class again.
    """
    if to is Format.TORCH and "keras" not in sys.modules:
        # Keras exports to torch from its own backend alone.
        os.environ.setdefault("KERAS_BACKEND", "torch")
    import_keras()
    from saikei.exporting import ENDINGS, export_int8, export_model
    from saikei.hub import without_preprocessor
    from saikei.modelfile import load_model
    from saikei.writing import check_target, write_text

    if quantize and (to is not Format.LITERT or data is None):
        raise InputError("--quantize writes LiteRT files (--format litert), and needs --data.")
    if to is Format.KERAS:
        refuse_typed(context, ["data", "label", "divide_by"], "--format keras takes no data.")
        _export_family(model, out, original, overwrite, as_json)
        return
    refuse_typed(context, ["original"], "it is for --format keras.")
    check_target(out, ENDINGS[to], overwrite)
    task = load_model(model)
    loaded = without_preprocessor(task)
    archive = optional_data(context, data, task, label, divide_by)
    inputs = None if archive is None else _inputs(archive, loaded, quantize is not None)
    names = out.with_suffix(".labels.txt") if archive is not None and archive.classes else None
    if names is not None:
        check_target(names, ".txt", overwrite)
    exported: Any
    scores: dict[str, Any] = {}
    if quantize and archive is not None:
        exported = export_int8(loaded, out, inputs, overwrite)
        scores = _scores(loaded, exported, archive)
    else:
        exported = export_model(loaded, out, to.value, inputs, overwrite)
    if names is not None and archive is not None:
        write_text(names, "".join(f"{name}\n" for name in archive.classes))
    if as_json:
        shown = {name: score.to_dict() for name, score in scores.items()}
        print_json({**exported.to_dict(), **shown, "labels": None if names is None else str(names)})
        return
    print_text(str(exported))
    if scores:
        print_text(f"Model: {scores['model']}. File, run by LiteRT: {scores['file']}.")
    if names is not None:
        print_text(f"{names}: names of the classes, a line for each output.")


def _inputs(archive: Archive, model: keras.Model, quantize: bool) -> Any:
    """The inputs that a file is compared on, or that the ranges of activations are taken from."""
    from saikei.checks import input_count
    from saikei.data import arrays

    parts = archive.test, archive.validation, archive.train
    # Ranges are taken from training data, so that what the file is scored on stays unseen.
    part = next(p for p in (parts[::-1] if quantize else parts) if p is not None)
    return arrays(part[:2], labels=False, inputs=input_count(model))[0]


def _export_family(
    model: Path, out: Path, original: Path | None, overwrite: bool, as_json: bool
) -> None:
    """Write a cut model of KerasHub as one of its class."""
    from saikei.exporting import export_family
    from saikei.modelfile import check_model_target, load_model

    check_model_target(out, overwrite)
    source = None if original is None else load_model(original)
    written = export_family(load_model(model), out, source, overwrite)
    if as_json:
        print_json(written.to_dict())
    else:
        print_text(str(written))


def _scores(model: Any, exported: Any, archive: Archive) -> dict[str, Any]:
    """The scores of the model and of the quantized file; empty for data without labels."""
    from saikei.exporting import compare_scores

    parts = archive.test, archive.validation, archive.train
    x, y = next(part for part in parts if part is not None)[:2]
    if y is None:
        return {}
    return dict(zip(("model", "file"), compare_scores(model, exported.run, x, y), strict=True))
