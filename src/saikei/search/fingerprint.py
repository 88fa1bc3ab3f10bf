"""Hashes of models, data and settings: a folder is continued only by the same run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from saikei.dataset_batches import dataset_length
from saikei.graph.state import state_of


def model_hash(models: Sequence[keras.Model]) -> str:
    """Hash of the models' configs, weights and other state of their layers."""
    digest = hashlib.sha256()
    for model in models:
        config = keras.saving.serialize_keras_object(model)
        # How the model was compiled does not change what it computes.
        config.pop("compile_config", None)
        digest.update(json.dumps(config, sort_keys=True, default=repr).encode())
        for weight in model.get_weights():
            _add_array(digest, weight)
        for key, value in sorted(state_of(model).items()):
            digest.update(key.encode() + value)
    return digest.hexdigest()[:32]


def data_hash(parts: Sequence[Any]) -> str:
    """Hash of the parts of the data.

    Arrays are hashed in full. Of other datasets only type and length are hashed: they may shuffle
    or augment, so their content may differ each time.
    """
    digest = hashlib.sha256()
    for part in parts:
        leaves = keras.tree.flatten(part)
        if all(hasattr(leaf, "__array__") for leaf in leaves):
            for leaf in leaves:
                _add_array(digest, np.asarray(leaf))
        else:
            length = dataset_length(part, "train")
            shown = -1 if length is None else length
            digest.update(f"{type(part).__qualname__} {shown}".encode())
        digest.update(b"|")
    return digest.hexdigest()[:32]


def settings_hash(settings: Any) -> str:
    """Hash of any JSON-ready value."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:32]


def _add_array(digest: Any, array: np.ndarray[Any, Any]) -> None:
    digest.update(f"{array.dtype} {array.shape}".encode())
    digest.update(np.ascontiguousarray(array).tobytes())
