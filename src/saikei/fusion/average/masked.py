"""Medians and sums of members' outputs in layers alone.

`keras.ops` operations lose the masks of padded sequences, and merging layers keep them. Sums of
probabilities are taken by their logarithms, for which there are layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Any

import numpy as np
from keras import layers

from saikei.scoring.links import Link

# Above the logarithm of 0, and far below that of any probability in float32.
_LOWEST = -1e4


def median(parts: Sequence[Any]) -> list[Any]:
    """The middle tensor, entry by entry, or the two in the middle, the lower first."""
    ordered = [*parts]
    # Odd-even transposition: as many rounds as there are parts put any order right.
    for start in range(len(parts)):
        for at in range(start % 2, len(parts) - 1, 2):
            ordered[at : at + 2] = _low(ordered[at : at + 2]), _high(ordered[at : at + 2])
    return ordered[(len(parts) - 1) // 2 : len(parts) // 2 + 1]


def pooled_logits(
    link: Link, logits: Sequence[Any], weights: Sequence[Sequence[float]] | None
) -> Any:
    """The logits of a median, or of a weighted sum, of probabilities.

    Args:
        link: `"softmax"` or `"sigmoid"`.
        logits: The logits of each member, symbolic.
        weights: For a softmax, the weights of each member, one for each class; `None` for the
            median.

    Returns:
        A tensor that a softmax or a sigmoid turns into the probabilities; before a softmax up to
        a constant for each position.
    """
    if weights is not None:
        pairs = zip(logits, weights, strict=True)
        logs = [_shifted(_activated("log_softmax", part), each) for part, each in pairs]
        return reduce(_log_sum, logs)
    if link == "softmax":
        return reduce(_log_sum, median([_activated("log_softmax", part) for part in logits]))
    middle = median(logits)
    if len(middle) == 1:
        return middle[0]
    minus = [layers.Rescaling(-1.0, dtype="float32")(part) for part in middle]
    yes, no = (_log_sum(*(_activated("log_sigmoid", p) for p in both)) for both in (middle, minus))
    return layers.Subtract(dtype="float32")([yes, no])


def _log_sum(a: Any, b: Any) -> Any:
    """The logarithm of the sum of two numbers of which the logarithms are given."""
    high, low = _high([a, b]), _low([a, b])
    below = layers.Subtract(dtype="float32")([low, high])
    return layers.Add(dtype="float32")([high, _activated("softplus", below)])


def _shifted(logs: Any, weights: Sequence[float]) -> Any:
    with np.errstate(divide="ignore"):
        offset = np.maximum(np.log(np.asarray(weights, dtype=np.float64)), _LOWEST)
    return layers.Rescaling(1.0, offset=offset.tolist(), dtype="float32")(logs)


def _activated(name: str, tensor: Any) -> Any:
    return layers.Activation(name, dtype="float32")(tensor)


def _low(pair: Sequence[Any]) -> Any:
    return layers.Minimum(dtype="float32")(pair)


def _high(pair: Sequence[Any]) -> Any:
    return layers.Maximum(dtype="float32")(pair)
