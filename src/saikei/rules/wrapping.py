"""`TimeDistributed`: the rule of the layer within it, step by step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from saikei.rules.base import CallView, Rule, Shape, pinned_flow
from saikei.rules.labels import Flow, Labels, LabelSource, Pin
from saikei.rules.recurrent import built_sizes

STEPS = "the same layer is applied along this axis"
PREFIX = "layer/"


def time_distributed(find_rule: Callable[[str], Rule | None]) -> Rule:
    """The rule of `TimeDistributed`.

    Args:
        find_rule: looks up the rule of the layer that is wrapped.
    """

    def flow(call: CallView, inputs: tuple[Labels, ...], source: LabelSource) -> Flow:
        rule, inner = _inner(call, find_rule)
        if rule is None:
            return pinned_flow(call, inputs, f"it wraps {inner.kind}, for which there is no rule")
        (given,) = inputs
        found = rule.flow(inner, ((given[0], *given[2:]),), source)
        if found.inexact is not None or found.settings or found.constants or found.arguments:
            return pinned_flow(call, inputs, f"it wraps {inner.kind}, which its rule cannot cut")
        prefix = PREFIX
        config = call.config["layer"]
        sizes = {f"layer/config/{key}": value for key, value in found.sizes.items()}
        produces = found.produces
        return replace(
            found,
            outputs=tuple((labels[0], None, *labels[1:]) for labels in found.outputs),
            weights={prefix + name: labels for name, labels in found.weights.items()},
            sizes={**sizes, **built_sizes(config, "layer", given[2:])},
            pins=found.pins + (() if given[1] is None else (Pin(given[1], STEPS),)),
            produces=None if produces is None else {prefix + k: v for k, v in produces.items()},
            rescale=tuple(
                replace(r, weights=tuple(prefix + name for name in r.weights))
                for r in found.rescale
            ),
        )

    def macs(call: CallView) -> int:
        rule, inner = _inner(call, find_rule)
        return 0 if rule is None else (call.inputs[0][1] or 1) * rule.macs(inner)

    return Rule(flow, macs)


def _inner(call: CallView, find_rule: Callable[[str], Rule | None]) -> tuple[Rule | None, CallView]:
    """The rule of the wrapped layer, and one step of the call as it sees it."""
    layer = call.config["layer"]
    module, name = str(layer.get("module") or ""), str(layer["class_name"])
    kind = name if module.startswith("keras") else f"{module}.{name}"
    view = replace(
        call,
        kind=kind,
        config=layer["config"],
        weights={key.removeprefix(PREFIX): shape for key, shape in call.weights.items()},
        inputs=tuple(_step(shape) for shape in call.inputs),
        outputs=tuple(_step(shape) for shape in call.outputs),
    )
    return find_rule(kind), view


def _step(shape: Shape) -> Shape:
    return (shape[0], *shape[2:])
