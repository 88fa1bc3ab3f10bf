"""A model as other runtimes need it: without training-only layers, and weights as constants."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import keras

from saikei.edits.folding.no_ops import around
from saikei.edits.folding.readers import forced_to_train
from saikei.graph import (
    Call,
    Graph,
    Operation,
    build,
    new_operation,
    read,
    redirect,
    replace_operations,
)
from saikei.graph.training_only import AUGMENTATION, TRAINING_ONLY
from saikei.models import CascadeModel


def deployable(model: keras.Model) -> keras.Model:
    """A flat copy that predicts the same, without dropout, noise and augmentation.

    Args:
        model: A built model; it is not changed. A cascade stays one.
    """
    if isinstance(model, CascadeModel):
        members = [deployable(member) for member in model.members]
        return CascadeModel(members, model.exits, shares=model.shares, name=model.name)
    graph = _constant_weights(_without_training(read(model)))
    return build(graph, model.name)


def _without_training(graph: Graph) -> Graph:
    """The graph without layers that do nothing when it predicts."""
    found = [index for index, call in enumerate(graph.calls) if _only_trains(graph, call)]
    same = [index for index in found if graph.calls[index].outputs == (_taken(graph, index),)]
    casts = {graph.calls[index].operation for index in found if index not in same}
    led = redirect(graph, dict(around(graph, index) for index in same))
    kinds = [led.operations[led.calls[ref.call].operation].kind for ref in led.output_refs()]
    if "InputLayer" in kinds:
        # A model whose output is its input is none.
        return graph
    graph = led
    # Those that are given whole numbers and make others of them still do that.
    chains = {
        name: (_cast(graph, name),)
        for name in casts
        if name in graph.operations
        and all(_only_trains(graph, call) for call in graph.calls if call.operation == name)
    }
    return replace_operations(graph, chains) if chains else graph


def _only_trains(graph: Graph, call: Call) -> bool:
    kind = graph.operations[call.operation].kind
    if kind not in TRAINING_ONLY or len(call.outputs) != 1 or len(call.inputs()) != 1:
        return False
    (ref,) = call.inputs()
    same_shape = call.outputs[0].shape == graph.spec(ref).shape
    return same_shape and (kind in AUGMENTATION or not forced_to_train(call))


def _taken(graph: Graph, index: int) -> Any:
    return graph.spec(graph.calls[index].inputs()[0])


def _cast(graph: Graph, name: str) -> Operation:
    (dtype,) = {c.outputs[0].dtype for c in graph.calls if c.operation == name}
    return new_operation(name, keras.layers.Rescaling(1.0, dtype=dtype, name=name))


# See `saikei.graph.parameters`.
_PARAMETER = re.compile(r"a,([b-z]+)->a\1")


def _constant_weights(graph: Graph) -> Graph:
    """Weights that a `call` uses itself as constants: LiteRT cannot convert all such layers."""
    chains = {
        name: (_constant(operation),)
        for name, operation in graph.operations.items()
        if operation.kind == "EinsumDense"
        and _PARAMETER.fullmatch(str((operation.config or {}).get("equation")))
        and list(operation.weights) == ["kernel"]
        and (operation.config or {}).get("activation") in (None, "linear")
        and _called_on_one(graph, name)
    }
    return replace_operations(graph, chains) if chains else graph


def _called_on_one(graph: Graph, name: str) -> bool:
    """Whether it is called on a vector with a single 1: on ones of the length of a slice `0:1`."""
    calls = [call for call in graph.calls if call.operation == name]
    if len(calls) != 1:
        return False
    (ref,) = calls[0].inputs()
    made = graph.calls[ref.call]
    return (
        graph.operations[made.operation].kind == "ops.OnesLike" and len(graph.spec(ref).shape) == 1
    )


def _constant(operation: Operation) -> Operation:
    kernel = operation.weights["kernel"].numpy()
    dtype = (operation.config or {}).get("dtype")
    layer = Constant(kernel, dtype=dtype, name=operation.name)
    return replace(new_operation(operation.name, layer), config=layer.get_config())


class Constant(keras.layers.Layer):
    """Gives an array, for a vector with a single 1. It is only exported, never saved.

    Args:
        array: What it gives.
        **kwargs: Arguments of every Keras layer, such as `name`.
    """

    def __init__(self, array: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.array = array

    def call(self, one: Any) -> Any:
        """The array with an axis of size 1 before it."""
        one = keras.ops.reshape(
            keras.ops.cast(one, self.compute_dtype), (1,) * (self.array.ndim + 1)
        )
        return keras.ops.multiply(one, keras.ops.cast(self.array[None], self.compute_dtype))

    def compute_output_shape(self, shape: Any) -> Any:
        """The shape of what it gives."""
        return (shape[0], *self.array.shape)

    def get_config(self) -> dict[str, Any]:
        """The array and the arguments of a layer."""
        return {**super().get_config(), "array": self.array}
