"""Weights that are no numbers are named before an edit computes with them."""

from __future__ import annotations

import numpy as np

from saikei.errors import EditError
from saikei.graph import Graph
from saikei.tensors import to_floats


def check_finite_weights(edit: str, graph: Graph) -> None:
    """Refuse a graph with NaN or infinite numbers among its weights.

    Args:
        edit: the name of the edit.
        graph: what it is applied to.

    Raises:
        EditError: naming the first such weight and its layer.
    """
    for name, operation in graph.operations.items():
        for key, weight in operation.weights.items():
            array = to_floats(weight.numpy())
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                raise EditError(
                    f"{edit}: '{key}' of layer '{name}' ({operation.kind}) holds NaN or infinite "
                    "numbers: use a state of the model from before they came."
                )
