"""How many samples can be run at once, call by call, without filling memory."""

from __future__ import annotations

from typing import Any

import numpy as np
from keras import tree

from saikei.calibration.run import Run
from saikei.calibration.samples import Samples
from saikei.graph import Graph

# Bytes that tensors may take.
LIMIT = 2**30
# One sample in five is held out by a refit.
FEWEST = 5


def affordable(graph: Graph, inputs: Any, tensors: int) -> Any:
    """Some of the samples, as many as can be held at once; the same ones at every call.

    Args:
        graph: The graph that is run on them.
        inputs: Nested as the graph nests its inputs, one sample a row.
        tensors: How many of the size of the largest are alive at once.

    Returns:
        All of them, or a random choice: never fewer than five, where there are as many.
    """
    return fewer(graph, Samples(inputs, ()), tensors).inputs


def fewer(graph: Graph, samples: Samples, tensors: int) -> Samples:
    """Some of the samples with their labels; see `affordable`."""
    most = max(FEWEST, LIMIT // (tensors * max(_largest(graph, samples.inputs), 1)))
    if most >= len(samples):
        return samples
    rows = np.sort(np.random.default_rng(0).choice(len(samples), most, replace=False))
    return samples.take(rows)


def _largest(graph: Graph, inputs: Any) -> int:
    """Bytes of one sample of all that the largest call gives."""
    unknown = any(
        size is None for call in graph.calls for one in call.outputs for size in one.shape[1:]
    )
    if not unknown:
        return max((sum(s.bytes_per_sample() for s in c.outputs) for c in graph.calls), default=1)
    # What an axis of unknown size is, one sample shows.
    run, largest = Run(graph, tree.map_structure(lambda leaf: leaf[:1], inputs)), 1
    for index in range(len(graph.calls)):
        outcome = run.step(index)
        largest = max(largest, sum(value.array.nbytes for value in outcome.before))
    return largest
