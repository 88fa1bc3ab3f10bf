"""`saikei export`: a model for a runtime other than Keras."""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from saikei.cli.options import Json, ModelFile, Overwrite
from saikei.cli.output import import_keras, say, say_json
from saikei.errors import InputError, WorkError, in_one_line


class Format(StrEnum):
    """What Keras exports to."""

    LITERT = "litert"
    ONNX = "onnx"
    OPENVINO = "openvino"
    SAVED_MODEL = "tf_saved_model"


_ENDINGS = {
    Format.LITERT: ".tflite",
    Format.ONNX: ".onnx",
    Format.OPENVINO: ".xml",
    Format.SAVED_MODEL: "",
}


def export(
    model: ModelFile,
    out: Annotated[Path, typer.Option(help="The file, or the folder of a SavedModel.")],
    to: Annotated[Format, typer.Option("--format", help="The runtime's format.")] = Format.LITERT,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Export a model to LiteRT, ONNX, OpenVINO or a TensorFlow SavedModel, through Keras."""
    import_keras()
    from saikei.modelfile import load_model
    from saikei.writing import check_target, draft_folder, remove

    check_target(out, _ENDINGS[to], overwrite)
    loaded = load_model(model)
    # Keras writes as it goes: into a folder of its own first, so that nothing is half-written.
    try:
        with draft_folder(out.parent) as draft:
            _export(loaded, draft / out.name, to)
            for made in draft.iterdir():
                check_target(out.parent / made.name, "", overwrite)
            for made in draft.iterdir():
                remove(out.parent / made.name)
                os.replace(made, out.parent / made.name)
    except InputError:
        raise
    except ImportError as error:
        missing = in_one_line(error)
        raise InputError(f"Exporting to {to} needs another package: {missing}.") from error
    except (RuntimeError, ValueError, TypeError, AttributeError, OSError) as error:
        raise WorkError(f"'{model}' cannot be exported to {to}: {in_one_line(error)}.") from error
    if as_json:
        say_json({"out": str(out), "format": to.value})
        return
    say(f"{out}: {to}.")


def _export(model: Any, path: Path, to: Format) -> None:
    import keras

    from saikei.graph import copy_model
    from saikei.models import CascadeModel

    # Some of Keras's exporters want a Functional model, and a path as a string. A cascade is
    # one, and a copy of it would run all members.
    exported = model if isinstance(model, CascadeModel) else copy_model(model)
    if to is Format.ONNX:
        # Keras exports to ONNX only what has been called, which a model from a file has not.
        exported(keras.tree.map_structure(_placeholder, exported.input))
        # From torch, weights that ask for gradients cannot become constants.
        exported.trainable = False
    exported.export(str(path), format=to.value, verbose=False)


def _placeholder(tensor: Any) -> Any:
    import keras

    return keras.KerasTensor(tensor.shape, tensor.dtype, name=tensor.name)
