"""Embeddings: the width is cut, the vocabulary stays."""

from __future__ import annotations

from saikei.rules.base import CallView, Rule, no_macs, product
from saikei.rules.labels import Flow, Labels, LabelSource, pin_all

TABLE = "embeddings"


def _embedding(call: CallView, inputs: tuple[Labels, ...], source: LabelSource) -> Flow:
    width = source.fresh(int(call.config["output_dim"]), call.operation)
    return Flow(
        outputs=((*inputs[0], width),),
        weights={TABLE: (None, width)},
        sizes={"output_dim": width},
        pins=pin_all(inputs, "numbers that are looked up in an embedding"),
    )


def _is_reverse(call: CallView) -> bool:
    return bool(call.value("reverse", 1, False))


def _reversible(call: CallView, inputs: tuple[Labels, ...], source: LabelSource) -> Flow:
    """Forward an embedding; in reverse a dense layer to the vocabulary, by the same table."""
    tied = bool(call.config["tie_weights"])
    if not _is_reverse(call):
        found = _embedding(call, inputs, source)
        width = found.outputs[0][-1]
    else:
        width = inputs[0][-1]
        sizes: dict[str, object] = {} if width is None else {"output_dim": width}
        found = Flow(outputs=((*inputs[0][:-1], None),), sizes=sizes)
    weights: dict[str, Labels] = {TABLE: (None, width)}
    if not tied:
        weights["reverse_embeddings"] = (width, None)
    produces = {} if _is_reverse(call) else {TABLE: (1,)}
    return Flow(
        outputs=found.outputs,
        weights=weights,
        sizes=found.sizes,
        pins=found.pins,
        produces=produces,
    )


def _reversible_macs(call: CallView) -> int:
    if not _is_reverse(call):
        return 0
    return call.positions(call.inputs[0]) * product(call.weights[TABLE])


RULES: dict[str, Rule] = {
    "Embedding": Rule(_embedding, no_macs),
    "ReversibleEmbedding": Rule(_reversible, _reversible_macs),
}
