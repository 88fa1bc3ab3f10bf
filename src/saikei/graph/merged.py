"""Whether a symbolic tensor's batch axis was joined with another axis on the way."""

from __future__ import annotations

from typing import Any

import keras

from saikei.graph import internals


def joined_its_batch(tensor: Any) -> bool:
    """Whether a reshape behind the tensor joined the batch axis with one of unknown size.

    As `reshape(x, (-1, width))` of a batch of sequences does. Which of the tensor's axes has what
    size cannot be told from then on.

    Args:
        tensor: a symbolic tensor.
    """
    seen, open_tensors = {id(tensor)}, [tensor]
    while open_tensors:
        current = open_tensors.pop()
        history = internals.history_of(current)
        if history is None or history.operation is None:
            continue
        node = internals.node_of(current)
        leaves = keras.tree.flatten(internals.node_arguments(node))
        given = [leaf for leaf in leaves if isinstance(leaf, keras.KerasTensor)]
        if _joins(node.operation, given, node.outputs):
            return True
        new = [t for t in given if id(t) not in seen]
        seen.update(id(t) for t in new)
        open_tensors.extend(new)
    return False


def _joins(operation: Any, given: list[Any], made: list[Any]) -> bool:
    if isinstance(operation, keras.Layer) or not hasattr(operation, "newshape"):
        return False
    before, after = tuple(given[0].shape), tuple(made[0].shape)
    # Two axes of unknown size at least, the batch among them, have become one.
    unknown = before.count(None)
    return before[0] is None and unknown > 1 and after.count(None) < unknown
