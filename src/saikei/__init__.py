"""Saikei: the best Keras model that fits a budget, by pruning, distilling and fusing.

Names are loaded when they are first used, so that the command line answers at once.
"""

from __future__ import annotations

import importlib

# As in `typing`, which takes a while to be imported.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from saikei.budget import Budget
    from saikei.channels import channel_groups
    from saikei.costs import profile
    from saikei.distilling import distill
    from saikei.edits import (
        Dequantize,
        DropChannels,
        Factorize,
        FoldBatchNorm,
        PruneChannels,
        PruneVocabulary,
        Quantize,
        Recipe,
        RemoveLayers,
        RemoveNoOps,
        ReplaceActivation,
        ReplaceHead,
        ReplaceKernel,
        ReplacePooling,
        Separate,
        Sparsify,
    )
    from saikei.errors import SaikeiError
    from saikei.fusion import (
        Average,
        BestMember,
        Boost,
        Cascade,
        Chain,
        Multimodal,
        Soup,
        Stack,
    )
    from saikei.judging import choose, explain, nested_score
    from saikei.merging import merge_files
    from saikei.rules import Rule, register_rule
    from saikei.scoring import evaluate
    from saikei.search import optimize
    from saikei.search.in_steps import cut_in_steps
    from saikei.training import cross_fit, declare_training_rows, fit

__all__ = [
    "Average",
    "BestMember",
    "Boost",
    "Budget",
    "Cascade",
    "Chain",
    "Dequantize",
    "DropChannels",
    "Factorize",
    "FoldBatchNorm",
    "Multimodal",
    "PruneChannels",
    "PruneVocabulary",
    "Quantize",
    "Recipe",
    "RemoveLayers",
    "RemoveNoOps",
    "ReplaceActivation",
    "ReplaceHead",
    "ReplaceKernel",
    "ReplacePooling",
    "Rule",
    "SaikeiError",
    "Separate",
    "Soup",
    "Sparsify",
    "Stack",
    "channel_groups",
    "choose",
    "cross_fit",
    "cut_in_steps",
    "declare_training_rows",
    "distill",
    "evaluate",
    "explain",
    "fit",
    "merge_files",
    "nested_score",
    "optimize",
    "profile",
    "register_rule",
]

_HOMES = {
    "Average": "fusion",
    "BestMember": "fusion",
    "Boost": "fusion",
    "Budget": "budget",
    "Cascade": "fusion",
    "Chain": "fusion",
    "Dequantize": "edits",
    "DropChannels": "edits",
    "Factorize": "edits",
    "FoldBatchNorm": "edits",
    "Multimodal": "fusion",
    "PruneChannels": "edits",
    "PruneVocabulary": "edits",
    "Quantize": "edits",
    "Recipe": "edits",
    "RemoveLayers": "edits",
    "RemoveNoOps": "edits",
    "ReplaceActivation": "edits",
    "ReplaceHead": "edits",
    "ReplaceKernel": "edits",
    "ReplacePooling": "edits",
    "Rule": "rules",
    "SaikeiError": "errors",
    "Separate": "edits",
    "Soup": "fusion",
    "Sparsify": "edits",
    "Stack": "fusion",
    "channel_groups": "channels",
    "choose": "judging",
    "cross_fit": "training",
    "cut_in_steps": "search",
    "declare_training_rows": "training",
    "distill": "distilling",
    "evaluate": "scoring",
    "explain": "judging",
    "fit": "training",
    "merge_files": "merging",
    "nested_score": "judging",
    "optimize": "search",
    "profile": "costs",
    "register_rule": "rules",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return importlib.import_module("importlib.metadata").version("saikei")
    if name not in _HOMES:
        raise AttributeError(f"module 'saikei' has no attribute '{name}'")
    return getattr(importlib.import_module(f"saikei.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
