"""Embeddings: the width is fresh labels; read backwards, the same table gives the logits."""

from __future__ import annotations

from saikei.rules.base import CallView, Rule, product
from saikei.rules.labels import Flow, Labels, LabelSource, Pin, labelled

_TOKENS = "these are indices into an embedding"


def _embedding(call: CallView, inputs: tuple[Labels, ...], source: LabelSource) -> Flow:
    width = source.fresh(int(call.config["output_dim"]), call.operation)
    weights: dict[str, Labels] = {"embeddings": (None, width)}
    if "reverse_embeddings" in call.weights:
        weights["reverse_embeddings"] = (width, None)
    return Flow(
        outputs=((*inputs[0], width),),
        weights=weights,
        sizes={"output_dim": width},
        pins=tuple(Pin(vector, _TOKENS) for _, vector in labelled(inputs[0])),
        produced=(("embeddings", 1),),
    )


def _reversible(call: CallView, inputs: tuple[Labels, ...], source: LabelSource) -> Flow:
    if not any(argument is True for argument in call.arguments):
        return _embedding(call, inputs, source)
    vector = inputs[0][-1]
    if vector is None:
        # It reads the table backwards from a width that cannot be cut.
        fixed: dict[str, Labels] = dict.fromkeys(call.weights, (None, None))
        return Flow(outputs=((None,) * len(call.outputs[0]),), weights=fixed)
    weights: dict[str, Labels] = {"embeddings": (None, vector)}
    if "reverse_embeddings" in call.weights:
        weights["reverse_embeddings"] = (vector, None)
    return Flow(((*inputs[0][:-1], None),), weights=weights, sizes={"output_dim": vector})


def _macs(call: CallView) -> int:
    """Looking up multiplies nothing; the way back is a matrix product."""
    if any(argument is True for argument in call.arguments):
        return call.positions(call.inputs[0]) * product(call.weights["embeddings"])
    return 0


RULES: dict[str, Rule] = {
    "Embedding": Rule(_embedding, _macs),
    "ReversibleEmbedding": Rule(_reversible, _macs),
}
