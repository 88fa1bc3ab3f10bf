"""Model files: read without running any code in them, written completely or not at all."""

from __future__ import annotations

import re
import sys
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saikei.archives import (
    FLOOR,
    check_memory,
    in_units,
    member_file,
    opened_hdf5,
    opened_zip,
)
from saikei.errors import ModelError, ModelWarning
from saikei.reading import parse_json
from saikei.writing import check_target, write_whole

if TYPE_CHECKING:
    import keras

_CONFIG, _WEIGHTS = "config.json", "model.weights.h5"
# How many times the weights in a file its config may declare: some layers store only a part.
_DECLARED = 4


def load_model(
    path: str | Path, custom: Mapping[str, Any] | None = None, compiled: bool = True
) -> keras.Model:
    """Read a `.keras` file in Keras's safe mode, where a lambda in it is refused and not run.

    A folder is read as a preset of KerasHub.

    First the sizes that the file unpacks to and that its config declares are compared with its own
    size, and its checksums with its content.

    Args:
        path: Path of the file or folder.
        custom: Classes and functions that Keras does not know, by name.
        compiled: Whether the model is compiled as it was.

    Returns:
        The model, built, with the loss that it was compiled with.

    Warns:
        ModelWarning: When it is not compiled, since its loss or a metric is not known here.

    Raises:
        ModelError: When there is no such file, it is no `.keras` file, is damaged, would take far
            more memory than it has bytes, cannot be read, or holds a model that was never built.
    """
    import keras

    from saikei.models import CascadeModel  # noqa: F401 - registers our own classes, which the file may hold

    path = Path(path)
    if path.is_dir():
        from saikei.hub.preset import load_preset

        return load_preset(path)
    if not path.is_file():
        raise ModelError(
            f"There is no file '{path}': give a model saved with model.save('….keras')."
        )
    if path.suffix != ".keras" or not zipfile.is_zipfile(path):
        raise ModelError(
            f"'{path}' is no .keras file: save the model with model.save('….keras') in Keras 3."
        )
    _check_sizes(path, custom)
    try:
        model = _loaded(path, custom, compiled)
    # Depending on the file Keras raises KeyError, TypeError, ValueError, OSError, …
    except Exception as error:  # noqa: BLE001
        try:
            if not compiled:
                raise
            model = _loaded(path, custom, False)
        except Exception:  # noqa: BLE001
            raise ModelError(f"'{path}' cannot be loaded: {_reason(error)}.") from error
        warnings.warn(
            f"'{path}' is loaded without the loss and metrics that it was compiled with: "
            f"{_reason(error)}.",
            ModelWarning,
            stacklevel=2,
        )
    if not isinstance(model, keras.Model):
        raise ModelError(f"'{path}' holds a {type(model).__name__}: save a whole keras.Model.")
    if not model.built:
        raise ModelError(
            f"The model in '{path}' is not built, so its shapes are unknown: call "
            "model.build(input_shape) and save it again."
        )
    return model


def _loaded(path: Path, custom: Mapping[str, Any] | None, compiled: bool) -> Any:
    import keras

    with warnings.catch_warnings():
        # Of the training state only the loss is of use here.
        warnings.filterwarnings("ignore", "Skipping variable loading for optimizer")
        if "keras_hub" in sys.modules:
            # Tasks of KerasHub compile themselves.
            warnings.filterwarnings("ignore", r"`compile\(\)` was not called as part of model load")
        return keras.saving.load_model(
            path, custom_objects=custom, compile=compiled, safe_mode=True
        )


def check_model_file(path: Path) -> None:
    """Refuse a `.keras` file that is missing or damaged, without loading it."""
    _read_frame(path)


def _check_sizes(path: Path, custom: Mapping[str, Any] | None) -> None:
    from saikei.graph.internals import declared_bytes
    from saikei.hub.preset import import_keras_hub, needs_keras_hub

    config, size, held = _read_frame(path)
    if needs_keras_hub(config):
        import_keras_hub(f"'{path}' holds a model of KerasHub")
    declared = declared_bytes(config, custom)
    if declared > max(FLOOR, _DECLARED * held):
        raise ModelError(
            f"'{path}' cannot be loaded: its {_CONFIG} declares {in_units(declared)} of weights, "
            f"and {in_units(held)} are there; it is damaged, get it again."
        )
    check_memory(declared + size, f"The model in '{path}'", ModelError)


def _read_frame(path: Path) -> tuple[dict[str, Any], int, int]:
    """The config, the bytes of the file of weights, and those of all weights in it."""
    what = f"'{path}' cannot be loaded: its"
    with opened_zip(path, ".keras file", "save it again with model.save", ModelError) as archive:
        for name in (_CONFIG, _WEIGHTS):
            if name not in archive.namelist():
                raise ModelError(f"{what} {name} is missing; save it again with model.save.")
        config = parse_json(archive.read(_CONFIG), f"{what} {_CONFIG}", ModelError)
        info = archive.getinfo(_WEIGHTS)
        weights = member_file(archive, info)
        with opened_hdf5(weights, f"{what} {_WEIGHTS}", info.file_size, ModelError) as (_, held):
            pass
    if not isinstance(config, dict):
        raise ModelError(f"{what} {_CONFIG} is no JSON object; save it again with model.save.")
    return config, info.file_size, held


def save_model(model: keras.Model, path: str | Path, overwrite: bool = False) -> Path:
    """Write a `.keras` file, or the folder of a preset, completely or not at all.

    Args:
        model: A built model.
        path: Path of the file, with the ending `.keras`; a name without an ending is that of a
            folder, for models of KerasHub.
        overwrite: Whether an existing file may be replaced.

    Raises:
        InputError: As `check_target` does.
        WorkError: When it cannot be written; an existing file is left as it was.
    """
    path = check_model_target(path, overwrite)
    if not path.suffix:
        from saikei.hub.preset import save_preset

        return save_preset(model, path, overwrite)
    return write_whole(path, lambda draft: model.save(draft))


def check_model_target(path: str | Path, overwrite: bool) -> Path:
    """Refuse a path that `save_model` cannot write to, before any work is done.

    Args:
        path: A path that ends in `.keras`, or in nothing for a folder.
        overwrite: Whether what is there may be replaced.

    Raises:
        InputError: As `check_target` does.
    """
    return check_target(path, ".keras" if Path(path).suffix else "", overwrite)


def _reason(error: Exception) -> str:
    """Keras's reason on one line, with a fix where one is known."""
    text = str(error)
    if any(sign in text for sign in ("unsafe", "safe_mode", "identifier: {'value'")):
        return (
            "it holds Python code (a lambda), which is never run: give the model to Saikei in the "
            "Python process that makes it, or put a layer class or a registered function there"
        )
    unknown = re.search(r"Could not locate (class|function) '([^']+)'(.*)", text, re.DOTALL)
    if unknown:
        return _how_to_name(*unknown.groups())
    return f"{_first_line(error)[:200]}; save it again with a recent Keras 3"


def _how_to_name(what: str, name: str, config: str) -> str:
    """The class or function that Keras does not know, and how to register it."""
    if what == "class":
        # A class is registered under a name with its package, the last that its config gives.
        name = [name, *re.findall(r"'registered_name': '([^']+)'", config)][-1]
    modules = re.findall(r"Full object config: {'module': '([^']+)'", config)
    module = f" of '{modules[0]}'" if modules and modules[0] != "builtins" else ""
    short = name.rsplit(">", 1)[-1]
    return (
        f"Keras has no {what} '{short}'{module}: in Python, import it and make it known with "
        f"keras.saving.get_custom_objects()['{name}'] = {short}, then load the file there"
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
