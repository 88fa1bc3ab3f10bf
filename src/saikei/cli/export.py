"""`saikei export`: convert a model for a runtime other than Keras."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from saikei.cli.data import optional_data
from saikei.cli.options import DivideBy, Json, Label, ModelFile, Overwrite
from saikei.cli.output import import_keras, say, say_json
from saikei.errors import InputError


class Format(StrEnum):
    """Formats of the runtimes that files are exported to."""

    LITERT = "litert"
    ONNX = "onnx"
    OPENVINO = "openvino"
    SAVED_MODEL = "saved_model"


def export(
    context: typer.Context,
    model: ModelFile,
    out: Annotated[
        Path,
        typer.Option(help="File to write (.tflite, .onnx, .xml), or the folder of a SavedModel."),
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
    from saikei.checks import input_count
    from saikei.data import arrays
    from saikei.exporting import ENDINGS, export_int8, export_model
    from saikei.modelfile import load_model
    from saikei.writing import check_target, write_text

    if int8 and (to is not Format.LITERT or data is None):
        raise InputError("--int8 writes LiteRT files (--format litert), and needs --data.")
    check_target(out, ENDINGS[to], overwrite)
    loaded = load_model(model)
    inputs = None
    archive = optional_data(context, data, loaded, label, divide_by)
    if archive is not None:
        parts = archive.test, archive.validation, archive.train
        # Ranges are taken from training data, so that what the file is scored on stays unseen.
        part = next(p for p in (parts[::-1] if int8 else parts) if p is not None)
        inputs = arrays(part, labels=False, inputs=input_count(loaded))[0]
    names = out.with_suffix(".labels.txt") if archive is not None and archive.classes else None
    if names is not None:
        check_target(names, ".txt", overwrite)
    exported: Any
    if int8:
        exported = export_int8(loaded, out, inputs, overwrite)
    else:
        exported = export_model(loaded, out, to.value, inputs, overwrite)
    if names is not None and archive is not None:
        write_text(names, "".join(f"{name}\n" for name in archive.classes))
    if as_json:
        say_json({**exported.to_dict(), "labels": None if names is None else str(names)})
        return
    say(str(exported))
    if names is not None:
        say(f"{names}: names of the classes, a line for each output.")
