"""LoRA: the low-rank factors that Keras adds to a kernel or table, counted into it.

`enable_lora` freezes a layer's kernel and trains two factors whose product is added to it. The
layer computes with the sum, so the sum is what a graph holds: one plain weight.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from saikei.graph import internals

_FACTORS = (
    ("_kernel", "lora_kernel_a", "lora_kernel_b"),
    ("_embeddings", "lora_embeddings_a", "lora_embeddings_b"),
)


@dataclass(frozen=True)
class MergedWeight:
    """A kernel or table with the product of its low-rank factors; worked out when it is read.

    Args:
        base: the frozen variable.
        first: the factor whose rows are the base's.
        second: the factor whose columns are the base's.
        scale: by what their product is multiplied.
    """

    base: Any
    first: Any
    second: Any
    scale: float

    @property
    def shape(self) -> tuple[int, ...]:
        """That of the base."""
        return tuple(self.base.shape)

    @property
    def dtype(self) -> str:
        """That of the base."""
        return str(self.base.dtype)

    def numpy(self) -> np.ndarray:
        """The sum, in the base's dtype."""
        base = internals.numbers(self.base)
        first, second = (internals.numbers(v).astype(np.float64) for v in (self.first, self.second))
        total = base.astype(np.float64) + self.scale * (first @ second)
        return np.asarray(total.astype(base.dtype))


def merged_weights(layer: Any) -> Iterator[tuple[Any, MergedWeight]]:
    """The layer, and those in it, with LoRA, each with its merged weight.

    Layers that are quantised besides are left out: their sum is no number of theirs.
    """
    for part in internals.flattened_layers(layer):
        if not getattr(part, "lora_enabled", False) or internals.quantisation_of(part):
            continue
        for base, first, second in _FACTORS:
            if hasattr(part, first):
                factors = getattr(part, first), getattr(part, second)
                alpha = getattr(part, "lora_alpha", None) or part.lora_rank
                yield part, MergedWeight(getattr(part, base), *factors, alpha / part.lora_rank)


def without_rank(config: Any) -> Any:
    """A config, and those within it, that enable no LoRA."""
    if isinstance(config, dict):
        return {
            key: None if key in ("lora_rank", "lora_alpha") else without_rank(value)
            for key, value in config.items()
        }
    return [without_rank(value) for value in config] if isinstance(config, list) else config
