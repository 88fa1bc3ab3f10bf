"""How much memory the weights of a stored model take, told from its config without taking any."""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Mapping
from typing import Any

import keras
from keras.src.backend.common import global_state

# Where Keras notes variables whose values are still to be made.
_PENDING = "uninitialized_variables"


def declared_bytes(config: Mapping[str, Any], custom: Mapping[str, Any] | None = None) -> int:
    """Bytes of all weights that a config declares.

    The model is made without values for its weights, and forgotten.

    Args:
        config: of a model, as in `config.json` of a `.keras` file.
        custom: classes and functions by name that Keras does not know.
    """
    pending = global_state.get_global_attribute(_PENDING, [], set_to_default=True)
    before = len(pending)
    # What is in the file decides what Keras raises. It will again when the file is loaded, and
    # has taken no more memory by then than is counted here.
    with contextlib.suppress(Exception), keras.StatelessScope(initialize_variables=False):
        keras.saving.deserialize_keras_object(
            {**config, "compile_config": None}, custom_objects=custom, safe_mode=True
        )
    made = pending[before:]
    del pending[before:]
    return sum(math.prod(variable.shape) * _itemsize(variable.dtype) for variable in made)


def _itemsize(dtype: str) -> int:
    bits = re.search(r"\d+", dtype)
    return max(1, int(bits[0]) // 8) if bits else 1
