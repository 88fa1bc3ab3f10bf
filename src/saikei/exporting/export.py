"""`export_model`: a model as a file for another runtime, kept once the runtime has run it."""

from __future__ import annotations

import importlib.util
import logging
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras

from saikei.costs import machine
from saikei.errors import InputError, ModelError, SaikeiError, WorkError, in_one_line
from saikei.exporting import runtimes
from saikei.exporting.check import Trial, difference, milliseconds, trial, unusable
from saikei.exporting.deployable import deployable
from saikei.graph import read
from saikei.graph.finite import check_finite_weights
from saikei.graph.internals import structures
from saikei.hub import without_preprocessor
from saikei.models import CascadeModel
from saikei.writing import check_target, draft_folder, remove

# Of a SavedModel the path is a folder.
ENDINGS = {
    "litert": ".tflite",
    "onnx": ".onnx",
    "openvino": ".xml",
    "saved_model": "",
    "torch": ".pt2",
}
# The name that Keras has for a format, where it is another.
_KERAS_NAMES = {"saved_model": "tf_saved_model"}
_OPEN: dict[str, tuple[str, str, Callable[[Path, Any], runtimes.Run]]] = {
    "litert": ("LiteRT", "tensorflow", runtimes.open_litert),
    "onnx": ("onnxruntime", "onnxruntime", runtimes.open_onnx),
    "openvino": ("OpenVINO", "openvino", runtimes.open_openvino),
    "saved_model": ("TensorFlow", "tensorflow", runtimes.open_saved_model),
    "torch": ("PyTorch", "torch", runtimes.open_torch),
}
# The extra of Saikei that installs a runtime, where it is not named like the package.
_EXTRAS = {"onnxruntime": "onnx"}
# Formats whose files may take one sample at a time, where batches of any size cannot be exported.
_SINGLE = ("litert", "torch")


@dataclass(frozen=True)
class Exported:
    """An exported file.

    Args:
        path: Path of the file.
        format: Name of the format.
        difference: Largest difference between the outputs of its runtime and of the model.
        samples: Inputs that they were compared on: `"made-up"` or `"given"`.
        milliseconds: Median time of one sample in its runtime, on this machine.
        one_by_one: Whether the file takes a single sample at a time.
    """

    path: Path
    format: str
    difference: float
    samples: str
    milliseconds: float
    one_by_one: bool = False

    def to_dict(self) -> dict[str, Any]:
        """The fields as values that fit into JSON."""
        return {
            "out": str(self.path),
            "format": self.format,
            "max_difference": self.difference,
            "samples": self.samples,
            "milliseconds": self.milliseconds,
            "machine": machine(),
            "one_by_one": self.one_by_one,
        }

    def __str__(self) -> str:
        runtime = _OPEN[self.format][0] if self.format in _OPEN else "Keras"
        batch = ", one sample at a time" if self.one_by_one else ""
        return (
            f"{self.path}: {self.format}; run by {runtime} on {self.samples} inputs{batch}, "
            f"max|difference| to the model {self.difference:.1e}; {self.milliseconds:.3g} ms for "
            f"one sample on {machine()}."
        )


def export_model(
    model: keras.Model,
    path: str | Path,
    format: str,  # noqa: A002 - as in Keras
    data: Any = None,
    overwrite: bool = False,
) -> Exported:
    """Export a model, run the file in its own runtime, and keep it if that gives the same.

    Dropout, noise and augmentation, which do nothing when a model predicts, are left out.

    Args:
        model: A built model; it is not changed. Of a task of KerasHub, the file takes what its
            preprocessor makes.
        path: Path of the file to write, or of the folder of a SavedModel.
        format: `"onnx"`, `"litert"`, `"openvino"`, `"saved_model"` or `"torch"`, which needs the
            torch backend.
        data: Inputs to compare on, as the model takes them; `None` makes random ones.
        overwrite: Whether an existing file may be replaced.

    Returns:
        What was written, and how far it is from the model.

    Raises:
        InputError: When the format is unknown, the path cannot be written to, a package is
            missing, weights are NaN, or the model cannot predict.
        WorkError: When Keras cannot export the model, or the runtime cannot run the file or
            computes something else. Nothing is left behind then.
    """
    if format not in ENDINGS:
        raise InputError(f"format={format!r} is unknown: use one of {', '.join(ENDINGS)}.")
    path = check_target(path, ENDINGS[format], overwrite)
    _check_available(format)
    model = without_preprocessor(model)
    check_finite_weights(f"Model '{model.name}' cannot be exported", read(model), ModelError)
    case = trial(model, data)
    with draft_folder(path.parent) as folder, _silent():
        draft, alone = folder / path.name, False
        try:
            apart, time = _tried(model, draft, format, case)
        except WorkError as error:
            if format not in _SINGLE:
                raise
            alone, (apart, time) = True, _one_by_one(model, draft, format, case, error)
        _put(folder, path, overwrite)
    return Exported(path, format, apart, "made-up" if data is None else "given", time, alone)


def _check_available(to: str) -> None:
    """Refuse a format whose runtime is missing, or that another backend exports to."""
    _, package, _ = _OPEN[to]
    if importlib.util.find_spec(package) is None:
        raise InputError(
            f"An export to {to} is checked by the package '{package}', which is not installed: "
            f"pip install 'saikei[{_EXTRAS.get(package, package)}]'."
        )
    if to == "torch" and keras.backend.backend() != "torch":
        raise InputError(
            "Keras exports to torch on the torch backend alone: set KERAS_BACKEND=torch."
        )


def _one_by_one(
    model: keras.Model, draft: Path, to: str, case: Trial, error: WorkError
) -> tuple[float, float]:
    """Export for single samples, where batches of any size cannot be exported."""
    missing = _beyond_litert(draft) if to == "litert" else []
    try:
        return _tried(model, draft, to, case, alone=True)
    except WorkError:
        if to != "litert":
            raise error from None
        names = ", ".join(_beyond_litert(draft) or missing)
        if not names:
            raise error from None
        raise _failed(
            model, "litert", f"it needs operations of TensorFlow that LiteRT lacks ({names})."
        ) from error


def _beyond_litert(draft: Path) -> list[str]:
    return runtimes.needs_tensorflow(draft) if draft.exists() else []


def _tried(
    model: keras.Model, draft: Path, to: str, case: Trial, alone: bool = False
) -> tuple[float, float]:
    """Write a file, run it, and return its largest difference to the model and its time."""
    runtime, _, open_file = _OPEN[to]
    written = _write(model, draft, to, alone)
    try:
        run = open_file(draft, written)
    # Each runtime has errors of its own.
    except Exception as error:
        raise _failed(model, to, unusable(error, f"{runtime} cannot open it")) from error
    try:
        return difference(run, *case, read(model), runtime), milliseconds(run, case[0])
    except WorkError as error:
        raise _failed(model, to, error) from error


def _write(model: keras.Model, path: Path, to: str, alone: bool) -> Any:
    exported: Any = deployable(model)
    options: dict[str, Any] = {}
    try:
        if to == "onnx" and not isinstance(exported, CascadeModel):
            # Keras exports to ONNX only what has been called.
            exported(keras.tree.map_structure(_placeholder, exported.input))
            # From torch, weights that ask for gradients cannot become constants.
            exported.trainable = False
        inputs, _ = structures(exported)
        if to == "torch" and not alone:
            options["dynamic_shapes"] = [(keras.tree.map_structure(_open_axes, inputs),)]
        if alone:
            options["input_signature"] = [keras.tree.map_structure(_one_sample, inputs)]
        # Some of Keras's exporters want a path as a string.
        exported.export(str(path), format=_KERAS_NAMES.get(to, to), verbose=False, **options)
    except SaikeiError:
        raise
    except ImportError as error:
        raise InputError(
            f"Exporting to {to} needs another package: {in_one_line(error)}."
        ) from error
    # Exporters raise whatever their converters do.
    except Exception as error:
        raise _failed(model, to, unusable(error, "it cannot be converted")) from error
    return exported


def _one_sample(tensor: Any) -> Any:
    shape = (1, *tensor.shape[1:])
    return keras.InputSpec(dtype=tensor.dtype, shape=shape, name=tensor.name)


def _open_axes(tensor: Any) -> Any:
    """The axes of an input that are of any size, as `torch.export` takes them."""
    return {axis: runtimes.any_size() for axis, size in enumerate(tensor.shape) if size is None}


def _failed(model: keras.Model, to: str, error: object) -> WorkError:
    return WorkError(f"Model '{model.name}' cannot be exported to {to}: {error}")


def _placeholder(tensor: Any) -> Any:
    return keras.KerasTensor(tensor.shape, tensor.dtype, name=tensor.name)


def _put(folder: Path, path: Path, overwrite: bool) -> None:
    """Move the written files to their folder."""
    made = sorted(folder.iterdir())
    for one in made:
        check_target(path.parent / one.name, "", overwrite)
    for one in made:
        target = path.parent / one.name
        remove(target)
        os.replace(one, target)


@contextmanager
def _silent() -> Iterator[None]:
    """Converters log what they then raise, with a traceback, and use what others will change."""
    loggers = [logging.getLogger(name) for name in ("tensorflow", "tf2onnx", "absl", "torch")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            for kind in (FutureWarning, DeprecationWarning, UserWarning):
                warnings.simplefilter("ignore", kind)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
