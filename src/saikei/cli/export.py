"""`saikei export`: convert a model for a runtime other than Keras."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from saikei.cli.options import Json, ModelFile, Overwrite
from saikei.cli.output import import_keras, say, say_json


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
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Export a model to LiteRT, ONNX, OpenVINO or a TensorFlow SavedModel, and check the file.

    The file is run in its own runtime, and kept if its outputs are those of the model.
    """
    import_keras()
    from saikei.exporting import ENDINGS, export_model
    from saikei.modelfile import load_model
    from saikei.npz import load_npz
    from saikei.writing import check_target

    check_target(out, ENDINGS[to], overwrite)
    archive = None if data is None else load_npz(data, labels=False)
    parts = () if archive is None else (archive.test, archive.validation, archive.train)
    inputs = next((part[0] for part in parts if part is not None), None)
    exported = export_model(load_model(model), out, to.value, inputs, overwrite)
    if as_json:
        say_json(exported.to_dict())
        return
    say(str(exported))
