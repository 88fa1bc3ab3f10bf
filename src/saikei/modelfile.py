"""Model files: read without executing anything in them, written whole or not at all."""

from __future__ import annotations

import os
import re
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from saikei.errors import InputError, ModelError, WorkError

if TYPE_CHECKING:
    import keras


def load_model(path: str | Path) -> keras.Model:
    """Read a `.keras` file in Keras's safe mode: a lambda in it is refused, not run.

    Args:
        path: of the file.

    Returns:
        The model, built, with the loss that it was compiled with.

    Raises:
        ModelError: when there is no such file, it is no `.keras` file, cannot be read, or holds
            a model that was never built.
    """
    import keras

    from saikei.models import CascadeModel  # noqa: F401 - registers our own classes, which the file may hold

    path = Path(path)
    if not path.is_file():
        raise ModelError(
            f"There is no file '{path}': give a model saved with model.save('….keras')."
        )
    if path.suffix != ".keras" or not zipfile.is_zipfile(path):
        raise ModelError(
            f"'{path}' is no .keras file: save the model with model.save('….keras') in Keras 3."
        )
    try:
        with warnings.catch_warnings():
            # Of the training state only the loss is of use here.
            warnings.filterwarnings("ignore", "Skipping variable loading for optimizer")
            model = keras.saving.load_model(path, safe_mode=True)
    # What is in the file decides what Keras raises: KeyError, TypeError, ValueError, OSError, …
    except Exception as error:
        raise ModelError(f"'{path}' cannot be loaded: {_reason(error)}") from error
    if not isinstance(model, keras.Model):
        raise ModelError(f"'{path}' holds a {type(model).__name__}: save a whole keras.Model.")
    if not model.built:
        raise ModelError(
            f"The model in '{path}' is not built, so its shapes are unknown: call "
            "model.build(input_shape) and save it again."
        )
    return model


def save_model(model: keras.Model, path: str | Path, overwrite: bool = False) -> Path:
    """Write a `.keras` file, whole or not at all.

    Args:
        model: a built model.
        path: of the file, with the ending `.keras`.
        overwrite: whether a file may be replaced.

    Returns:
        The path.

    Raises:
        InputError: as `check_target` does.
        WorkError: when the disk does not take it; a file that was there before still is.
    """
    path = check_target(path, ".keras", overwrite)
    try:
        return write_whole(path, lambda draft: model.save(draft))
    except OSError as error:
        raise WorkError(
            f"'{path}' cannot be written ({_first_line(error)}): make room, or write elsewhere."
        ) from error


def check_target(path: str | Path, ending: str, overwrite: bool) -> Path:
    """Refuse a place to write to before any work is done for it.

    Args:
        path: of the file or folder to write.
        ending: that its name must have; may be empty.
        overwrite: whether it may exist.

    Raises:
        InputError: when the name is wrong, the folder does not exist, or the file does.
    """
    path = Path(path)
    if ending and path.is_dir():
        raise InputError(f"'{path}' is a folder: give the name of a file, ending in {ending}.")
    if ending and path.suffix != ending:
        raise InputError(f"'{path}' must end in {ending}: name it '{path.with_suffix(ending)}'.")
    if not path.parent.is_dir():
        raise InputError(f"There is no folder '{path.parent}' to write '{path.name}' to: make it.")
    if path.exists() and not overwrite:
        raise InputError(f"'{path}' exists: give another name, or --overwrite it.")
    return path


def write_whole(path: Path, write: Callable[[Path], object]) -> Path:
    """Write under another name of the same ending, then rename.

    Args:
        path: of the file to write.
        write: writes the file that it is given; another file in its way was left by a kill.
    """
    draft = path.with_name(f".draft-{os.getpid()}-{path.name}")
    try:
        write(draft)
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)
    return path


def _reason(error: Exception) -> str:
    """What Keras says, on one line, with the way to mend it where we know one."""
    text = str(error)
    if "unsafe" in text or "safe_mode" in text:
        return "it holds Python code (a Lambda layer), which is never run; use a layer class."
    unknown = re.search(r"Could not locate (class|function) '([^']+)'", text)
    if unknown:
        return (
            f"Keras has no {unknown[1]} '{unknown[2]}'; decorate it with "
            "keras.saving.register_keras_serializable() and use Saikei from Python."
        )
    return f"{_first_line(error)[:200]}; save it again with a recent Keras 3."


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
