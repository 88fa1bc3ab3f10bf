"""Whether all weights of a graph are numbers."""

from __future__ import annotations

import numpy as np

from saikei.errors import InputError
from saikei.graph.flat import Graph
from saikei.tensors import to_floats


def check_finite_weights(what: str, graph: Graph, kind: type[InputError]) -> None:
    """Refuse a graph with NaN among its weights, or infinite numbers among those that are trained.

    A table that is not trained may hold infinite numbers, such as the -inf of a causal mask.

    Args:
        what: What is refused, for the message: "PruneChannels" or "Member 2".
        graph: The graph of the model.
        kind: Class of the error to raise.
    """
    for name, operation in graph.operations.items():
        for key, weight in operation.weights.items():
            array = to_floats(weight.numpy())
            if array.dtype.kind != "f":
                continue
            right = np.isfinite(array) if weight.trainable else ~np.isnan(array)
            if not right.all():
                raise kind(
                    f"{what}: '{key}' of layer '{name}' ({operation.kind}) holds NaN or infinite "
                    "numbers: use weights that were saved before training diverged."
                )
