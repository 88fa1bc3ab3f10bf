"""Configs of layers without the settings that do not change what a layer with weights computes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

# Settings that make no difference once there are weights.
_IDLE = ("name", "trainable", "seed", "build_config", "registered_name", "shared_object_id")
_IDLE_ENDINGS = ("_initializer", "_regularizer", "_constraint")


def stripped(value: Any, but: Sequence[str] = ()) -> Any:
    """A config without the settings that make no difference once there are weights."""
    if isinstance(value, Mapping):
        return {
            key: stripped(entry, but)
            for key, entry in value.items()
            if key not in (*_IDLE, *but) and not str(key).endswith(_IDLE_ENDINGS)
        }
    if isinstance(value, (list, tuple)):
        return [stripped(entry, but) for entry in value]
    return value
