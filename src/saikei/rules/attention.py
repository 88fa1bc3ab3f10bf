"""Attention: heads, key width, value width and output width are cut separately.

The scores of a head are sums over its key width, divided by the square root of that width. With
fewer key channels Keras divides by less; the query weights are rescaled to make up for it. On JAX
Keras calls a kernel that wants keys and values of one width, so there these two are cut together.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import keras
import numpy as np

from saikei.rules.base import CallView, Rule, Shape, on_axis, pinned_flow, product
from saikei.rules.labels import (
    Flow,
    Labels,
    LabelSource,
    Pin,
    Rescale,
    Tie,
    Vector,
    labelled,
    pin_all,
)
from saikei.rules.merging import tie_axis

ATTENDED = "attention goes over this axis"
QUERY, KEY, VALUE, GATE, OUTPUT = (
    f"{part}_dense" for part in ("query", "key", "value", "gate", "output")
)


@dataclass(frozen=True)
class Roles:
    """Which inputs of a call are query, key and value; the others are masks."""

    query: int
    key: int
    value: int

    def pins(self, inputs: tuple[Labels, ...]) -> tuple[Pin, ...]:
        """Pins for all that is neither a batch axis nor the width of these three."""
        own = {self.query, self.key, self.value}
        masks = tuple(labels for i, labels in enumerate(inputs) if i not in own)
        return pin_all(masks, "a mask of attention") + tuple(
            Pin(vector, ATTENDED)
            for i in sorted(own)
            for axis, vector in labelled(inputs[i])
            if axis not in (0, len(inputs[i]) - 1)
        )


def _roles(call: CallView) -> Roles | None:
    query, value = call.tensors("query", 0), call.tensors("value", 1)
    if len(query) != 1 or len(value) != 1:
        return None
    key = call.tensors("key", 2) or value
    return Roles(query[0], key[0], value[0])


@dataclass(frozen=True)
class _Heads:
    """The labels inside a layer of several heads."""

    query_heads: Vector | None
    key_heads: Vector | None
    key: Vector
    value: Vector
    outputs: tuple[Vector | None, ...]


def _weights(
    call: CallView, inputs: tuple[Labels, ...], roles: Roles, heads: _Heads
) -> tuple[dict[str, Labels], dict[str, tuple[int, ...]]]:
    """Labels of the projections, and which of their axes make channels."""
    axes: dict[str, tuple[Labels, Labels]] = {
        QUERY: ((inputs[roles.query][-1],), (heads.query_heads, heads.key)),
        KEY: ((inputs[roles.key][-1],), (heads.key_heads, heads.key)),
        VALUE: ((inputs[roles.value][-1],), (heads.key_heads, heads.value)),
        GATE: ((inputs[roles.query][-1],), (heads.query_heads, heads.value)),
        OUTPUT: ((heads.query_heads, heads.value), heads.outputs),
    }
    weights: dict[str, Labels] = {}
    produces: dict[str, tuple[int, ...]] = {}
    for name, (given, made) in axes.items():
        for weight, labels in ((f"{name}/kernel", given + made), (f"{name}/bias", made)):
            if weight in call.weights:
                weights[weight] = labels
                produces[weight] = tuple(range(len(labels) - len(made), len(labels)))
    return weights, produces


def _flow(
    call: CallView, inputs: tuple[Labels, ...], roles: Roles, heads: _Heads, flow: Flow
) -> Flow:
    """What all layers of several heads have in common, with sizes and ties of one of them."""
    rank = len(call.inputs[roles.query])
    batch = inputs[roles.query][0]
    output: Labels = (batch, *(None,) * (rank - 2), *heads.outputs)
    outputs = [output]
    if len(call.outputs) > 1:
        # The scores: the heads stand before the axes that attention goes over.
        scores = on_axis(len(call.outputs[1]), rank - 1 - _attended(call, rank), heads.query_heads)
        outputs.append(scores)
    weights, produces = _weights(call, inputs, roles, heads)
    if heads.key_heads is None and f"{OUTPUT}/kernel" in produces:
        # All heads read one value, so it is the output's rows that make a head what it is.
        produces[f"{OUTPUT}/kernel"] += (0,)
    rescaled = tuple(name for name in (f"{QUERY}/kernel", f"{QUERY}/bias") if name in weights)
    return Flow(
        outputs=tuple(outputs),
        weights=weights,
        sizes=flow.sizes,
        ties=flow.ties,
        pins=roles.pins(inputs) + flow.pins,
        produces=produces,
        rescale=(Rescale(rescaled, heads.key, 0.5),),
    )


def _attended(call: CallView, rank: int) -> int:
    """The number of axes that attention goes over; without a setting, all but batch and width."""
    axes = call.config.get("attention_axes")
    return rank - 2 if axes is None else len(axes) if isinstance(axes, (list, tuple)) else 1


def _multi_head(call: CallView, inputs: tuple[Labels, ...], source: LabelSource) -> Flow:
    roles = _roles(call)
    if roles is None:
        return pinned_flow(call, inputs, "its query or value is no tensor")
    config, name = call.config, call.operation
    count = source.fresh(int(config["num_heads"]), name, "heads")
    key = source.fresh(int(config["key_dim"]), name, "key")
    value_dim = int(config["value_dim"] or config["key_dim"])
    one_width = keras.backend.backend() == "jax" and value_dim == int(config["key_dim"])
    value = key if one_width else source.fresh(value_dim, name, "value")
    shape = config["output_shape"] or (call.inputs[roles.query][-1],)
    outputs = tuple(
        source.fresh(int(size or 1), name, f"output{i}" if len(shape) > 1 else "")
        for i, size in enumerate(shape)
    )
    sizes: dict[str, object] = {
        "num_heads": count,
        "key_dim": key,
        "value_dim": value,
        "output_shape": outputs,
    }
    return _flow(
        call, inputs, roles, _Heads(count, count, key, value, outputs), Flow((), sizes=sizes)
    )


def _grouped_query(call: CallView, inputs: tuple[Labels, ...], source: LabelSource) -> Flow:
    """Query heads go in whole groups, with the key and value head that they share."""
    roles = _roles(call)
    if roles is None:
        return pinned_flow(call, inputs, "its query or value is no tensor")
    config, name = call.config, call.operation
    queries, keys = int(config["num_query_heads"]), int(config["num_key_value_heads"])
    width = source.fresh(int(config["head_dim"]), name, "width")
    sizes: dict[str, object] = {"head_dim": width}
    key_heads: Vector | None = None
    if keys == 1:
        query_heads = source.fresh(queries, name, "heads")
    else:
        key_heads = source.fresh(keys, name, "heads")
        query_heads = np.repeat(key_heads, queries // keys)
        sizes["num_key_value_heads"] = key_heads
    sizes["num_query_heads"] = query_heads
    # Keras gives the output the width of the query, and wants the value to have it too.
    parts = [(call.inputs[i][-1], inputs[i][-1]) for i in (roles.query, roles.value)]
    output, ties, pins = tie_axis(parts)
    heads = _Heads(query_heads, key_heads, width, width, (output,))
    return _flow(call, inputs, roles, heads, Flow((), sizes=sizes, ties=ties, pins=pins))


def _heads_macs(call: CallView) -> int:
    roles = _roles(call)
    if roles is None:
        return 0
    query, key, value = (call.inputs[i] for i in (roles.query, roles.key, roles.value))
    given = {QUERY: query, KEY: key, VALUE: value, GATE: query, OUTPUT: query}
    projections = sum(
        call.positions(shape) * product(call.weights[f"{name}/kernel"])
        for name, shape in given.items()
        if f"{name}/kernel" in call.weights
    )
    heads, width = call.weights[f"{QUERY}/kernel"][1:]
    rank = len(query)
    axes = call.config.get("attention_axes") or tuple(range(1, rank - 1))
    axes = (axes,) if isinstance(axes, int) else axes
    # Keras counts negative axes from before the heads and the width.
    over = {a if a >= 0 else rank + a for a in axes}
    pairs = call.positions(query) * product(tuple(value[a] for a in over))
    value_width = call.weights[f"{VALUE}/kernel"][-1]
    return projections + pairs * (heads or 1) * ((width or 1) + (value_width or 1))


def _attention_layer(call: CallView, inputs: tuple[Labels, ...], source: LabelSource) -> Flow:
    """`Attention` and `AdditiveAttention`: no projections, the value passes."""
    given = call.tensors("inputs", 0)
    if len(given) < 2:
        return pinned_flow(call, inputs, "its query or value is no tensor")
    roles = Roles(given[0], given[2] if len(given) > 2 else given[1], given[1])
    pair = (roles.query, roles.key)
    width, ties, pins = tie_axis([(call.inputs[i][-1], inputs[i][-1]) for i in pair])
    output = (
        inputs[roles.query][0],
        *(None,) * (len(call.outputs[0]) - 2),
        inputs[roles.value][-1],
    )
    outputs = (output, *((None,) * len(shape) for shape in call.outputs[1:]))
    weights: dict[str, Labels] = {
        name: (width,) if shape else () for name, shape in call.weights.items()
    }
    return Flow(outputs, weights=weights, ties=ties, pins=roles.pins(inputs) + pins)


def _attention_layer_macs(call: CallView) -> int:
    given = call.tensors("inputs", 0)
    if len(given) < 2:
        return 0
    query, value = call.inputs[given[0]], call.inputs[given[1]]
    width = (query[-1] or 1) + (value[-1] or 1)
    return call.positions(query) * (value[-2] or 1) * width


def _dot_product(call: CallView, inputs: tuple[Labels, ...], source: LabelSource) -> Flow:
    """`keras.ops.dot_product_attention` of `(batch, length, heads, width)`."""
    given = [call.tensors(name, i) for i, name in enumerate(("query", "key", "value"))]
    if [len(found) for found in given] != [1, 1, 1] or any(call.tensors("scale", 5)):
        return pinned_flow(call, inputs, "its query, key, value or scale is computed elsewhere")
    query, key, value = (found[0] for found in given)
    width, ties, pins = tie_axis([(call.inputs[i][3], inputs[i][3]) for i in (query, key)])
    # Keras gives the output the query's shape, so the value has its width.
    both, new_ties, new_pins = tie_axis([(None, width), (None, inputs[value][3])])
    heads, head_ties, head_pins = _shared_heads(call.inputs, inputs, query, (key, value))
    masks = tuple(labels for i, labels in enumerate(inputs) if i not in (query, key, value))
    attended = tuple(
        Pin(vector, ATTENDED) for i in (query, key, value) if (vector := inputs[i][1]) is not None
    )
    arguments = {
        at: 1.0 / math.sqrt(call.inputs[query][3] or 1)
        for at in call.find("scale", 5)
        if call.arguments[at] is None
    }
    return Flow(
        outputs=((inputs[query][0], None, heads, both),),
        ties=ties + new_ties + head_ties,
        pins=pins + new_pins + head_pins + attended + pin_all(masks, "a mask of attention"),
        # The divisor that Keras would take from the width, which a cut must not change.
        arguments=dict(arguments),
    )


def _shared_heads(
    shapes: Sequence[Shape], inputs: tuple[Labels, ...], query: int, others: tuple[int, int]
) -> tuple[Vector | None, tuple[Tie, ...], tuple[Pin, ...]]:
    """Heads of queries and of keys and values, of which several queries may share one."""
    count = shapes[query][2] or 1
    parts: list[tuple[int | None, Vector | None]] = [(count, inputs[query][2])]
    pins: tuple[Pin, ...] = ()
    for index in others:
        own, vector = shapes[index][2] or 1, inputs[index][2]
        if own == 1 and count > 1:
            pins += () if vector is None else (Pin(vector, "the only key and value head"),)
        else:
            parts.append((count, None if vector is None else np.repeat(vector, count // own)))
    found, ties, more = tie_axis(parts)
    return found, ties, pins + more


def _dot_product_macs(call: CallView) -> int:
    query, key = call.inputs[0], call.inputs[1]
    return 2 * product(query[1:]) * (key[1] or 1)


RULES: dict[str, Rule] = {
    "MultiHeadAttention": Rule(_multi_head, _heads_macs),
    "GroupedQueryAttention": Rule(_grouped_query, _heads_macs),
    "Attention": Rule(_attention_layer, _attention_layer_macs),
    "AdditiveAttention": Rule(_attention_layer, _attention_layer_macs),
    "ops.DotProductAttention": Rule(_dot_product, _dot_product_macs),
}
