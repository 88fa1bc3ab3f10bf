"""The head that is given to `ReplaceHead`, in one form whatever it was given as."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from typing import Any

import keras

from saikei.errors import EditError, in_one_line
from saikei.graph.own_functions import unsavable


def normalised(head: Any) -> keras.Model | tuple[dict[str, Any], ...] | None:
    """A head as a model with weights, or as configs of layers.

    Args:
        head: A layer, a config of one, several of these, or a model.

    Raises:
        EditError: Naming what is none of these.
    """
    if isinstance(head, keras.Sequential) and not head.built:
        head = head.layers
    if head is None or isinstance(head, keras.Model):
        if head is not None and not head.built:
            raise EditError(
                f"ReplaceHead(head=…): model '{head.name}' is not built: call it once on data, or "
                "give its layers as a list."
            )
        return head
    parts = list(head) if isinstance(head, (list, tuple)) else [head]
    if not parts:
        raise EditError("ReplaceHead(head=[]) names no layer: leave head out for none.")
    return tuple(_config(part, f"head_{number}") for number, part in enumerate(parts))


def _config(part: Any, name: str) -> dict[str, Any]:
    """What a layer is made again from, as it comes out of JSON too."""
    if isinstance(part, Mapping):
        settings = {"name": name, **dict(part.get("config") or {})}
        part = layer_from(
            {"module": "keras.layers", "registered_name": None, **part, "config": settings}
        )
    if not isinstance(part, keras.Layer):
        raise EditError(
            f"ReplaceHead(head=…) got {part!r:.80}: give layers of Keras, their configs, or a "
            "model."
        )
    if isinstance(part, keras.Model) or part.weights:
        raise EditError(
            f"ReplaceHead(head=[…]): '{part.name}' has weights already: give a new layer, or make "
            "one model of the whole head to keep its weights."
        )
    if (what := unsavable(part)) is not None:
        raise EditError(
            f"ReplaceHead(head=[…]): layer '{part.name}' holds a function ({what}) that JSON "
            "cannot hold: make it a function that is registered with Keras, or give the head as a "
            "built model."
        )
    config = keras.saving.serialize_keras_object(part)
    config.pop("build_config", None)
    normal: dict[str, Any] = json.loads(json.dumps(config))
    return normal


def layer_from(config: Mapping[str, Any]) -> keras.Layer:
    """A new layer from its config.

    Raises:
        EditError: When Keras makes no layer of it.
    """
    try:
        layer = keras.saving.deserialize_keras_object(copy.deepcopy(dict(config)))
    # What is in the config decides what Keras raises.
    except Exception as error:
        raise EditError(
            f"ReplaceHead(head=…): {config.get('class_name')!r} cannot be made from its config: "
            f"{in_one_line(error)}."
        ) from error
    if not isinstance(layer, keras.Layer):
        raise EditError(f"ReplaceHead(head=…): {config.get('class_name')!r} is no layer: give one.")
    return layer
