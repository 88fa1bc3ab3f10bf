"""How many samples can be run at once, call by call, without filling memory."""

from __future__ import annotations

from typing import Any

import numpy as np

from saikei.calibration.parts import largest_bytes
from saikei.calibration.samples import Samples
from saikei.graph import Graph

# Bytes that tensors may take.
LIMIT = 2**30
# One sample in five is held out by a refit.
FEWEST = 5


def affordable(graph: Graph, inputs: Any, tensors: int, until: int | None = None) -> Any:
    """Some of the samples, as many as can be held at once; the same ones at every call.

    Args:
        graph: The graph that is run on them.
        inputs: Nested as the graph nests its inputs, one sample a row.
        tensors: How many of the size of the largest are alive at once.
        until: The call before which it ends; `None` runs all calls.

    Returns:
        All of them, or a random choice: never fewer than five, where there are as many.
    """
    return fewer(graph, Samples(inputs, ()), tensors, until).inputs


def fewer(graph: Graph, samples: Samples, tensors: int, until: int | None = None) -> Samples:
    """Some of the samples with their labels; see `affordable`."""
    most = max(FEWEST, LIMIT // (tensors * largest_bytes(graph, samples.inputs, until)))
    if most >= len(samples):
        return samples
    rows = np.sort(np.random.default_rng(0).choice(len(samples), most, replace=False))
    return samples.take(rows)
