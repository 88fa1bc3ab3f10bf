"""Equal layers of several members of a fused model are computed once."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import keras
import numpy as np
from keras import tree

from saikei.edits.folding.affine import Affine, CannotFoldError, fold_behind
from saikei.edits.folding.readers import forced_to_train, readers
from saikei.graph import Call, Graph, Operation, TensorRef, build, read, redirect
from saikei.graph.state import differing_state
from saikei.rules.wrapping import JOINED


def compacted(model: keras.Model) -> keras.Model:
    """A fused model in which equal frozen layers on equal inputs are computed once.

    Layers are equal when their kind, settings and weights are, to the bit. The weights of an
    average are taken into the layers that it averages where these are linear. A model without
    such layers is given back as it is.
    """
    graph = read(model)
    repeated = equal_tensors(graph)
    if not any(_operation(graph, ref).weights for ref in repeated):
        return model
    return build(_folded(redirect(graph, repeated)), model.name)


def equal_tensors(graph: Graph) -> dict[TensorRef, TensorRef]:
    """Tensors that are equal to an earlier one, with that earlier one."""
    same: dict[TensorRef, TensorRef] = {}
    known: dict[str, list[int]] = {}
    for index, call in enumerate(graph.calls):
        key = _key(graph, call, same)
        if key is None:
            continue
        twins = known.setdefault(key, [])
        for twin in twins:
            if _same_weights(graph, graph.calls[twin], call):
                pairs = enumerate(call.outputs)
                same |= {TensorRef(index, at): TensorRef(twin, at) for at, _ in pairs}
                break
        else:
            twins.append(index)
    return same


def _operation(graph: Graph, ref: TensorRef) -> Operation:
    return graph.operations[graph.calls[ref.call].operation]


def _key(graph: Graph, call: Call, same: Mapping[TensorRef, TensorRef]) -> str | None:
    """A key that equal calls share; `None` for a call that is never merged."""
    operation = graph.operations[call.operation]
    frozen = not any(weight.trainable for weight in operation.weights.values())
    unknown = operation.config is None or operation.kind == "InputLayer"
    if unknown or forced_to_train(call) or not frozen:
        return None
    # Initializers do not matter, and whether weights are trainable is decided above.
    config = {
        name: value
        for name, value in (operation.config or {}).items()
        if name not in ("name", "trainable") and not name.endswith("_initializer")
    }

    def shown(leaf: Any) -> Any:
        if isinstance(leaf, TensorRef):
            first = same.get(leaf, leaf)
            return f"tensor {first.call}:{first.output}"
        return keras.saving.serialize_keras_object(leaf)

    if operation.kind == JOINED:
        # The config of the wrapper holds names alone.
        config = {}
    try:
        arguments = tree.map_structure(shown, [list(call.args), dict(call.kwargs)])
        settings = keras.saving.serialize_keras_object(config)
        return json.dumps([operation.kind, settings, arguments], sort_keys=True)
    except (TypeError, ValueError):
        # Settings without a JSON form cannot be compared.
        return None


def _same_weights(graph: Graph, one: Call, other: Call) -> bool:
    first, second = (graph.operations[call.operation] for call in (one, other))
    ours, theirs = first.weights, second.weights
    if {n: w.shape for n, w in ours.items()} != {n: w.shape for n, w in theirs.items()}:
        return False
    return not differing_state(first.source, second.source) and all(
        ours[name].key == theirs[name].key
        or np.array_equal(ours[name].numpy(), theirs[name].numpy())
        for name in ours
    )


def _folded(graph: Graph) -> Graph:
    """The graph with each `Rescaling` folded into the linear layer before it, where possible."""
    while True:
        read_by = readers(graph)
        for index, call in enumerate(graph.calls):
            changed = _fold(graph, index, call, read_by)
            if changed is not None:
                graph = changed
                break
        else:
            return graph


def _fold(
    graph: Graph, index: int, call: Call, read_by: Mapping[TensorRef, list[int]]
) -> Graph | None:
    scale = _scale(graph.operations[call.operation])
    if scale is None:
        return None
    (taken,) = call.inputs()
    source = _operation(graph, taken)
    calls = [one for one in graph.calls if one.operation == source.name]
    if len(calls) > 1 or read_by[taken] != [index]:
        return None
    spec = graph.spec(taken)
    first = (source.config or {}).get("data_format") == "channels_first"
    axis = 1 if first and source.kind != "Dense" else len(spec.shape) - 1
    width = spec.shape[axis] or 0
    affine = Affine(np.full(width, scale), np.zeros(width), axis, len(spec.shape))
    try:
        folded = fold_behind(source, affine)
    except CannotFoldError:
        return None
    led_around = redirect(graph, {TensorRef(index, 0): taken})
    operation = led_around.operations[source.name]
    weights = {
        name: replace(weight, trainable=source.weights[name].trainable)
        if name in source.weights
        else weight
        for name, weight in folded.weights.items()
    }
    return led_around.with_operations(
        {source.name: replace(operation, config=folded.config, weights=weights)}
    )


def _scale(operation: Operation) -> float | None:
    """The factor of a layer that does nothing but multiply by one number."""
    config = operation.config or {}
    scale, offset = config.get("scale"), config.get("offset", 0.0)
    plain = isinstance(scale, (int, float)) and isinstance(offset, (int, float)) and offset == 0
    return float(scale) if operation.kind == "Rescaling" and plain and scale is not None else None
