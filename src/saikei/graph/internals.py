"""Everything that Saikei uses of Keras beyond its public surface, in one place.

Keras exports `operations`, `inputs` and `outputs` of a model. Which call made a tensor, with
which arguments, is kept in `KerasHistory` and `Node`, which it does not export.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras.src.models.functional import Functional


def is_graph_model(operation: object) -> bool:
    """Whether a model's function is exactly its own symbolic graph.

    True for Functional and Sequential models that are built, and for subclasses of them that
    do not override `call`.
    """
    if isinstance(operation, keras.Sequential):
        return type(operation).call is keras.Sequential.call and operation._functional is not None
    return isinstance(operation, Functional) and type(operation).call is Functional.call


def structures(model: Any) -> tuple[Any, Any]:
    """The nested structures in which the model takes its inputs and gives its outputs."""
    functional = _functional(model)
    return functional._inputs_struct, functional._outputs_struct


def operation_names(model: Any) -> set[str]:
    """The names of the model's own operations, not of those in nested models."""
    return {operation.name for operation in _functional(model).operations}


def _functional(model: Any) -> Any:
    return model._functional if isinstance(model, keras.Sequential) else model


def producer(tensor: Any) -> tuple[Any, int, int]:
    """`(operation, node index, output index)` of the call that made a symbolic tensor."""
    history = tensor._keras_history
    return history.operation, history.node_index, history.tensor_index


def node_of(tensor: Any) -> Any:
    """The node (one call of an operation) that made a symbolic tensor."""
    operation, node_index, _ = producer(tensor)
    return operation._inbound_nodes[node_index]


def node_arguments(node: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments that the node's operation was called with."""
    return node.arguments.args, node.arguments.kwargs


def takes_training(operation: Any) -> bool:
    """Whether the operation's `call` has a `training` argument."""
    return bool(getattr(operation, "_call_has_training_arg", False))


def own_weights(layer: Any) -> list[Any]:
    """The layer's weights, in saving order; `[]` for operations that are no layers."""
    return list(layer.weights) if isinstance(layer, keras.Layer) else []


def numbers(variable: Any) -> np.ndarray:
    """A variable's numbers as a read-only array, without a copy where the backend has them so.

    They stay as they are when the variable is assigned to.
    """
    if keras.config.backend() == "tensorflow" and variable.dtype == "float32":
        # A tensor that is read keeps its buffer; its `numpy()` would copy it.
        return np.asarray(memoryview(variable.value.read_value()))
    return np.asarray(variable.numpy())


def flattened_layers(layer: Any) -> list[Any]:
    """The layer and every layer in it."""
    return list(layer._flatten_layers()) if isinstance(layer, keras.Layer) else []


def detached_copy(operation: Any) -> Any:
    """A copy of a stateless operation that stands in no graph yet."""
    twin = object.__new__(type(operation))
    twin.__dict__.update(operation.__dict__)
    twin._inbound_nodes = []
    twin._outbound_nodes = []
    return twin
