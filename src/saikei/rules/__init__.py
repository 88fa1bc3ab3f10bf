"""How labels pass through each kind of layer, and what it costs: one file per family."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from saikei.arguments import checked
from saikei.rules import (
    activations,
    attention,
    contraction,
    convolution,
    dense,
    embedding,
    indexing,
    merging,
    normalization,
    recurrent,
    reduction,
    repeating,
    reshaping,
    spatial,
    wrapping,
)
from saikei.rules.base import CallView, Rule, pinned_flow
from saikei.rules.labels import Flow, Labels, LabelSource, Pin, Rescale, Tie
from saikei.rules.quantised import MODES, quantised, why_whole

__all__ = [
    "BUILT_IN",
    "CallView",
    "Flow",
    "LabelSource",
    "Labels",
    "Pin",
    "Rescale",
    "Rule",
    "Tie",
    "find_rule",
    "pinned_flow",
    "register_rule",
    "why_whole",
]

BUILT_IN: Mapping[str, Rule] = MappingProxyType(
    {
        **activations.RULES,
        **attention.RULES,
        **contraction.RULES,
        **convolution.RULES,
        **dense.RULES,
        **embedding.RULES,
        **indexing.RULES,
        **merging.RULES,
        **normalization.RULES,
        **recurrent.RULES,
        **reduction.RULES,
        **repeating.RULES,
        **reshaping.RULES,
        **spatial.RULES,
        **wrapping.RULES,
    }
)

# Rules that users add for their own layers. The built-in ones never change.
_added: dict[str, Rule] = {}


@checked
def register_rule(rule: Rule) -> Callable[[type], type]:
    """A class decorator that gives a user's own layer a rule.

    Args:
        rule: How labels pass through the layer and what it costs.

    Returns:
        The decorator; it returns the class unchanged.
    """

    def decorate(cls: type) -> type:
        _added[f"{cls.__module__}.{cls.__qualname__}"] = rule
        return cls

    return decorate


def find_rule(kind: str) -> Rule | None:
    """The rule for a kind of operation; `None` where there is none, so that it is pinned."""
    plain, _, mode = kind.partition("[")
    if mode:
        rule = find_rule(plain) if mode.rstrip("]") in MODES else None
        return None if rule is None else quantised(rule, mode.rstrip("]"))
    return BUILT_IN.get(kind) or _added.get(kind)
