"""Attention: heads, key and value widths are channels of their own."""

from __future__ import annotations

import numpy as np

from saikei.rules.base import CallView, Rule, pinned_flow, product
from saikei.rules.labels import Flow, Labels, LabelSource, Pin, Tie, Vector, labelled
from saikei.rules.merging import WITH_FIXED

_SEQUENCE = "attention compares all positions of this axis"


def _slot(call: CallView, position: int, name: str) -> int | None:
    """Which input tensor was given for an argument, by position or by name."""
    for index, slot in enumerate(call.slots):
        if slot in (position, name):
            return index
    return None


def _others(call: CallView, inputs: tuple[Labels, ...], used: set[int]) -> tuple[Pin, ...]:
    """Pins for every axis of the inputs but the last one of query, key and value."""
    pins: list[Pin] = []
    for index, labels in enumerate(inputs):
        for axis, vector in labelled(labels):
            if index not in used or axis != len(labels) - 1:
                pins.append(Pin(vector, _SEQUENCE))
    return tuple(pins)


def _query_key_value(call: CallView) -> tuple[int, int, int]:
    query, value = _slot(call, 0, "query"), _slot(call, 1, "value")
    if query is None or value is None:
        raise AssertionError(f"'{call.operation}' is called without query or value.")
    key = _slot(call, 2, "key")
    return query, value if key is None else key, value


def _projection(
    call: CallView, name: str, kernel: Labels, bias: Labels, weights: dict[str, Labels]
) -> None:
    weights[f"{name}/kernel"] = kernel
    if f"{name}/bias" in call.weights:
        weights[f"{name}/bias"] = bias


def _multi_head(call: CallView, inputs: tuple[Labels, ...], source: LabelSource) -> Flow:
    query, key, value = _query_key_value(call)
    if len(call.weights["attention_output/kernel"]) != 3 or call.config.get("use_gate"):
        return pinned_flow(call, inputs, "its output has several axes, or a gate")
    heads = source.fresh(int(call.config["num_heads"]), call.operation)
    keys = source.fresh(int(call.config["key_dim"]), call.operation)
    values = source.fresh(call.weights["value/kernel"][2] or 0, call.operation)
    out = source.fresh(call.weights["attention_output/kernel"][2] or 0, call.operation)
    weights: dict[str, Labels] = {}
    _projection(call, "query", (inputs[query][-1], heads, keys), (heads, keys), weights)
    _projection(call, "key", (inputs[key][-1], heads, keys), (heads, keys), weights)
    _projection(call, "value", (inputs[value][-1], heads, values), (heads, values), weights)
    _projection(call, "attention_output", (heads, values, out), (out,), weights)
    sizes: dict[str, object] = {
        "num_heads": heads,
        "key_dim": keys,
        "value_dim": values,
        # By default the output is as wide as the query, which may be cut otherwise.
        "output_shape": (out,),
    }
    return Flow(
        outputs=_outputs(call, heads, out),
        weights=weights,
        sizes=sizes,
        pins=_others(call, inputs, {query, key, value}),
        produced=_silencing(weights),
        rescale=_rescaled(weights, keys),
    )


def _grouped_query(call: CallView, inputs: tuple[Labels, ...], source: LabelSource) -> Flow:
    query, key, value = _query_key_value(call)
    if call.config.get("use_gate"):
        return pinned_flow(call, inputs, "it has a gate")
    key_heads = source.fresh(int(call.config["num_key_value_heads"]), call.operation)
    # Each head of keys and values goes with all the query heads that read it.
    query_heads = np.repeat(key_heads, int(call.config["num_query_heads"]) // len(key_heads))
    width = source.fresh(int(call.config["head_dim"]), call.operation)
    out = inputs[query][-1]
    weights: dict[str, Labels] = {}
    _projection(call, "query", (out, query_heads, width), (query_heads, width), weights)
    _projection(call, "key", (inputs[key][-1], key_heads, width), (key_heads, width), weights)
    _projection(call, "value", (inputs[value][-1], key_heads, width), (key_heads, width), weights)
    # The output is always as wide as the query.
    _projection(call, "attention_output", (query_heads, width, out), (out,), weights)
    produced = _silencing(weights)
    if out is not None:
        produced += (("attention_output/kernel", 2), ("attention_output/bias", 0))
    return Flow(
        outputs=_outputs(call, query_heads, out),
        weights=weights,
        sizes={
            "head_dim": width,
            "num_query_heads": query_heads,
            "num_key_value_heads": key_heads,
        },
        pins=_others(call, inputs, {query, key, value}),
        produced=produced,
        rescale=_rescaled(weights, width),
    )


def _silencing(weights: dict[str, Labels]) -> tuple[tuple[str, int], ...]:
    """The axes of the projections that make heads and widths."""
    found: list[tuple[str, int]] = []
    for name in ("query", "value"):
        found += [(f"{name}/kernel", 2), (f"{name}/bias", 1)]
    found += [("value/kernel", 1), ("value/bias", 0)]
    return tuple((name, axis) for name, axis in found if name in weights)


def _rescaled(weights: dict[str, Labels], width: Vector) -> dict[str, tuple[Vector, float]]:
    """Scores are divided by the root of the key width, so the query makes up for a cut."""
    return {name: (width, 0.5) for name in ("query/kernel", "query/bias") if name in weights}


def _outputs(call: CallView, heads: Vector, out: Vector | None) -> tuple[Labels, ...]:
    first: Labels = (*(None,) * (len(call.outputs[0]) - 1), out)
    if len(call.outputs) == 1:
        return (first,)
    # The attention scores: (batch, heads, query positions, key positions).
    return first, (None, heads, *(None,) * (len(call.outputs[1]) - 2))


def _projected_macs(call: CallView) -> int:
    query, _, value = _query_key_value(call)
    targets, sources = (product(call.inputs[i][1:-1]) for i in (query, value))
    kernels = {
        name: product(call.weights[f"{name}/kernel"])
        for name in ("query", "key", "value", "attention_output")
    }
    heads, width = (size or 1 for size in call.weights["query/kernel"][1:])
    value_width = call.weights["value/kernel"][2] or 1
    projections = targets * (kernels["query"] + kernels["attention_output"])
    projections += sources * (kernels["key"] + kernels["value"])
    return projections + targets * sources * heads * (width + value_width)


def _attention(call: CallView, inputs: tuple[Labels, ...], source: LabelSource) -> Flow:
    """`Attention` and `AdditiveAttention` on `[query, value]` or `[query, value, key]`."""
    if len(inputs) < 2 or any(len(labels) != 3 for labels in inputs[:2]):
        return pinned_flow(call, inputs, "it is called in a way that its rule does not know")
    keyed = len(inputs) > 2 and len(inputs[2]) == 3
    key = inputs[2 if keyed else 1][-1]
    query, value = inputs[0][-1], inputs[1][-1]
    ties, pins = _paired(query, key)
    weights: dict[str, Labels] = {}
    if "scale" in call.weights:
        weights["scale"] = (query if ties else None,) * len(call.weights["scale"])
    outputs: list[Labels] = [(None, None, value)]
    outputs += [(None,) * len(shape) for shape in call.outputs[1:]]
    return Flow(
        outputs=tuple(outputs),
        weights=weights,
        ties=ties,
        pins=pins + _others(call, inputs, {0, 1, 2} if keyed else {0, 1}),
    )


def _paired(first: Vector | None, second: Vector | None) -> tuple[tuple[Tie, ...], tuple[Pin, ...]]:
    if first is not None and second is not None:
        return (Tie(first, second),), ()
    return (), tuple(Pin(vector, WITH_FIXED) for vector in (first, second) if vector is not None)


def _attention_macs(call: CallView) -> int:
    query, value = call.inputs[:2]
    return (query[1] or 1) * (value[1] or 1) * ((query[2] or 1) + (value[2] or 1))


RULES: dict[str, Rule] = {
    "MultiHeadAttention": Rule(_multi_head, _projected_macs),
    "GroupedQueryAttention": Rule(_grouped_query, _projected_macs),
    "Attention": Rule(_attention, _attention_macs),
    "AdditiveAttention": Rule(_attention, _attention_macs),
}
