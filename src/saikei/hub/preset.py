"""Presets of KerasHub: folders with configs, weights, a tokenizer and a preprocessor."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import keras

from saikei.archives import check_memory, opened_hdf5
from saikei.errors import InputError, ModelError, in_one_line
from saikei.hub.family import family_of
from saikei.reading import parse_json
from saikei.writing import check_target, write_whole

_CONFIG, _TOKENIZER = "config.json", "tokenizer.json"
_WHOLE, _INDEX = "model.weights.h5", "model.weights.json"


def load_preset(path: Path) -> keras.Model:
    """The task in the folder of a preset, or the backbone where it holds no task.

    Args:
        path: A folder that `save_to_preset` wrote.

    Raises:
        ModelError: When KerasHub is not installed, or the folder is incomplete or damaged, which
            is found out before weights are read.
    """
    config = _check_complete(path)
    import_keras_hub(f"'{path}' is a preset of KerasHub")
    _check_tokenizer(path)
    kind = keras.saving.get_registered_object(config.get("registered_name"))
    if kind is None or not hasattr(kind, "from_preset"):
        raise ModelError(
            f"'{path}' holds a {config.get('class_name')}, which this KerasHub does not know: "
            "install a later one."
        )
    try:
        model: keras.Model = kind.from_preset(str(path))
    # Depending on the file, any error may come.
    except Exception as error:
        raise ModelError(f"Preset '{path}' cannot be loaded: {in_one_line(error)}.") from error
    return model


def save_preset(model: keras.Model, path: Path, overwrite: bool) -> Path:
    """Write a task or backbone as a preset: the whole folder, or nothing.

    Args:
        model: A task or backbone of KerasHub.
        path: The new folder.
        overwrite: Whether an existing folder may be replaced.

    Raises:
        InputError: When the model is of no class of KerasHub, or the path cannot be written.
        DiskError: When the folder cannot be written.
    """
    path = check_target(path, "", overwrite)
    family = family_of(model)
    if family is None:
        raise InputError(
            f"Model '{model.name}' is no task of KerasHub, which a folder is for: name a file, "
            f"'{path.with_suffix('.keras')}'."
        )
    return write_whole(path, lambda draft: family.model.save_to_preset(str(draft)))


def import_keras_hub(why: str) -> None:
    """Import KerasHub, which makes its classes known to Keras.

    Raises:
        ModelError: When it is not installed.
    """
    try:
        importlib.import_module("keras_hub")
    except ImportError as error:
        raise ModelError(
            f"{why}, which is not installed ({in_one_line(error)}): pip install keras-hub."
        ) from error


def needs_keras_hub(config: Mapping[str, Any]) -> bool:
    """Whether the config of a `.keras` file has classes of KerasHub."""
    return '"keras_hub' in json.dumps(config)


def _check_complete(path: Path) -> Mapping[str, Any]:
    """The config of the task or backbone, once every file of the preset is there and undamaged."""
    if not (path / _CONFIG).is_file():
        raise ModelError(
            f"'{path}' is a folder without {_CONFIG}: give a .keras file, or a preset that "
            "save_to_preset wrote."
        )
    if (path / _WHOLE).is_file():
        held = _check_weights(path / _WHOLE, ())
    elif (path / _INDEX).is_file():
        held = sum(_check_weights(*shard) for shard in _shards(path))
    else:
        raise ModelError(f"Preset '{path}' has no {_WHOLE}: copy the whole folder.")
    check_memory(held, f"The preset in '{path}'", ModelError)
    task = path / "task.json"
    return _json(task if task.is_file() else path / _CONFIG)


def _shards(path: Path) -> list[tuple[Path, tuple[str, ...]]]:
    """The files of weights that an index names, with the parts of the model that each holds."""
    shards: dict[str, list[str]] = {}
    for part, names in _json(path / _INDEX).get("weight_map", {}).items():
        for name in _names(names):
            shards.setdefault(name, []).append(part)
    missing = sorted(name for name in shards if not (path / name).is_file())
    if missing or not shards:
        named = f"'{missing[0]}', which is missing" if missing else "no files"
        raise ModelError(f"{_INDEX} of preset '{path}' names {named}: copy the whole folder.")
    return [(path / name, tuple(parts)) for name, parts in sorted(shards.items())]


def _check_weights(path: Path, parts: Iterable[str]) -> int:
    """The bytes of the weights in a file that holds these parts; no weight is read."""
    with opened_hdf5(path.open("rb"), f"'{path}'", path.stat().st_size, ModelError) as (file, held):
        absent = next((part for part in parts if part not in file), None)
    if absent is not None:
        raise ModelError(
            f"'{path}' holds no weights of '{absent}', which {_INDEX} lists for it: copy the "
            "whole folder again."
        )
    return held


def _check_tokenizer(path: Path) -> None:
    """Refuse a preset whose tokenizer is incomplete, or has tokens that the model does not know."""
    if not (path / _TOKENIZER).is_file():
        return
    hub: Any = importlib.import_module("keras_hub")
    try:
        tokenizer = hub.tokenizers.Tokenizer.from_preset(str(path))
        tokens = int(tokenizer.vocabulary_size())
    # Depending on what is missing, any error may come.
    except Exception as error:
        raise ModelError(
            f"The tokenizer of preset '{path}' cannot be loaded: {in_one_line(error)}."
        ) from error
    entries = _json(path / _CONFIG).get("config", {}).get("vocabulary_size")
    if isinstance(entries, int) and tokens > entries:
        raise ModelError(
            f"The tokenizer of preset '{path}' has {tokens:,} tokens, and the embedding of its "
            f"backbone {entries:,}: copy the tokenizer that the model was trained with."
        )


def _names(names: Any) -> list[str]:
    return [names] if isinstance(names, str) else list(names)


def _json(path: Path) -> Mapping[str, Any]:
    found = parse_json(path.read_text(encoding="utf-8"), f"'{path}'", ModelError)
    if not isinstance(found, dict):
        raise ModelError(f"'{path}' is no JSON object: copy the whole folder again.")
    return found
