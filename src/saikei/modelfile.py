"""Model files: read without executing anything in them, written whole or not at all."""

from __future__ import annotations

import re
import warnings
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

from saikei.errors import ModelError
from saikei.writing import check_target, write_whole

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
    return write_whole(path, lambda draft: model.save(draft))


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
