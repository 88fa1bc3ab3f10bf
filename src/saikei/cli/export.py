"""`saikei export`: convert a model for a runtime other than Keras."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from saikei.cli.options import Json, ModelFile, Overwrite
from saikei.cli.output import import_keras, say, say_json
from saikei.errors import InputError


class Format(StrEnum):
    """Formats that Keras exports to."""

    LITERT = "litert"
    ONNX = "onnx"
    OPENVINO = "openvino"
    SAVED_MODEL = "tf_saved_model"


def export(
    model: ModelFile,
    out: Annotated[
        Path,
        typer.Option(help="File to write (.tflite, .onnx, .xml), or the folder of a SavedModel."),
    ],
    to: Annotated[Format, typer.Option("--format", help="The runtime's format.")] = Format.LITERT,
    data: Annotated[
        Path | None,
        typer.Option(
            help="An .npz file with x_test, x_val or x_train, the first of which is what file and "
            "model are compared on. Default: random inputs."
        ),
    ] = None,
    int8: Annotated[
        bool,
        typer.Option(
            "--int8",
            help="Quantize weights and activations to int8 (LiteRT only); needs --data, whose "
            "inputs give the ranges of activations.",
        ),
    ] = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Export a model to LiteRT, ONNX, OpenVINO or a TensorFlow SavedModel, and check the file.

    The file is run in its own runtime, and kept if its outputs are those of the model.
    """
    import_keras()
    from saikei.exporting import ENDINGS, export_int8, export_model
    from saikei.modelfile import load_model
    from saikei.npz import load_npz
    from saikei.writing import check_target

    if int8 and (to is not Format.LITERT or data is None):
        raise InputError("--int8 writes LiteRT files (--format litert), and needs --data.")
    check_target(out, ENDINGS[to], overwrite)
    archive = None if data is None else load_npz(data, labels=False)
    parts = () if archive is None else (archive.test, archive.validation, archive.train)
    # Ranges are taken from training data, so that what the file is scored on stays unseen.
    inputs = next((p[0] for p in (parts[::-1] if int8 else parts) if p is not None), None)
    loaded = load_model(model)
    exported: Any
    if int8:
        exported = export_int8(loaded, out, inputs, overwrite)
    else:
        exported = export_model(loaded, out, to.value, inputs, overwrite)
    if as_json:
        say_json(exported.to_dict())
        return
    say(str(exported))
