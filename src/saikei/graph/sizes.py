"""The model input that has the same unknown size as a tensor."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from saikei.graph.flat import Call, Operation, TensorRef

_LAYERS = (
    "Dense Embedding ReversibleEmbedding LayerNormalization RMSNormalization BatchNormalization "
    "Dropout Activation Softmax ReLU LeakyReLU PReLU ELU Identity Add Subtract Multiply Average "
    "Maximum Minimum MultiHeadAttention GroupedQueryAttention GaussianNoise SpatialDropout1D"
)
_OPERATIONS = (
    "Add Subtract Multiply Divide TrueDivide Maximum Minimum Power Cast Negative Absolute Square "
    "Sqrt Rsqrt Exp Log Tanh Sigmoid Relu Gelu Silu Softmax LogicalAnd LogicalOr Where NotEqual "
    "Equal Greater GreaterEqual Less LessEqual OnesLike ZerosLike Copy StopGradient"
)
# Kinds of which every axis of the output but the last has the size of that axis of the inputs.
_KEEPING = frozenset(_LAYERS.split()) | {f"ops.{name}" for name in _OPERATIONS.split()}

_LOOKED_UP = frozenset({"Embedding", "ReversibleEmbedding"})


def origin(
    operations: Mapping[str, Operation], calls: Sequence[Call], ref: TensorRef, axis: int
) -> TensorRef:
    """The first model input whose axis of that number has the same unknown size, or the tensor.

    Positions and masks that every block of a model computes from its own input become the same for
    all blocks, and do not depend on what the blocks compute.

    Args:
        operations: The operations by name.
        calls: The calls so far, in order.
        ref: The tensor that has the axis.
        axis: Position of the axis, whose size is unknown.
    """
    # Of other tensors, one of unknown size 1 may have been broadcast.
    inputs, seen, open_refs = [], {ref}, [ref]
    while open_refs:
        current = open_refs.pop()
        if operations[calls[current.call].operation].kind == "InputLayer":
            inputs.append(current)
        new = [s for s in _same_size(operations, calls, current, axis) if s not in seen]
        seen.update(new)
        open_refs.extend(new)
    return min(inputs, key=lambda found: found.call, default=ref)


def _same_size(
    operations: Mapping[str, Operation], calls: Sequence[Call], ref: TensorRef, axis: int
) -> list[TensorRef]:
    """The inputs of the call that made a tensor whose axis has the same size."""
    call = calls[ref.call]
    operation = operations[call.operation]
    shape = call.outputs[ref.output].shape
    found = []
    for source in call.inputs():
        given = calls[source.call].outputs[source.output].shape
        if len(given) <= axis or given[axis] is not None:
            continue
        same_rank = len(given) == len(shape) and axis < len(shape) - 1
        looked_up = operation.kind in _LOOKED_UP and len(given) == len(shape) - 1
        kept = operation.kind in _KEEPING and (same_rank or looked_up)
        reshaped = operation.kind == "Reshape" and _only_unknown(axis, given, shape)
        moved = _einsum_keeps(operation, axis) or _stays(operation, axis, len(given))
        batch = axis == 0 and _keeps_batch(operation, given, shape)
        part = same_rank and operation.kind == "ops.GetItem" and _takes_of_last(call)
        if kept or reshaped or moved or batch or part:
            found.append(source)
    return found


def _einsum_keeps(operation: Operation, axis: int) -> bool:
    if operation.kind != "EinsumDense" or operation.config is None:
        return False
    equation: Any = operation.config["equation"]
    given, made = equation.split(",")[0], equation.split("->")[1]
    if "." in equation:
        return False
    return axis < min(len(given), len(made)) and given[axis] == made[axis]


def _keeps_batch(
    operation: Operation, given: Sequence[int | None], made: Sequence[int | None]
) -> bool:
    """Whether the first axis stays: in layers of Keras, and where a reshape keeps the rest."""
    if operation.kind == "ops.Reshape":
        sizes = [[size for size in shape[1:] if size is not None] for shape in (given, made)]
        known = len(sizes[0]) == len(given) - 1 and len(sizes[1]) == len(made) - 1
        return known and math.prod(sizes[0]) == math.prod(sizes[1])
    return isinstance(operation.source, keras.Layer) and "." not in operation.kind


def _takes_of_last(call: Call) -> bool:
    """Whether an indexing is `x[..., start:stop]`, which leaves all axes but the last."""
    keys = call.args[1] if len(call.args) > 1 else None
    return (
        isinstance(keys, tuple)
        and len(keys) == 2
        and keys[0] is Ellipsis
        and isinstance(keys[1], slice)
    )


def _only_unknown(axis: int, *shapes: Sequence[int | None]) -> bool:
    """Whether, besides the batch, that is the only axis of unknown size in each of the shapes."""
    return axis > 0 and all(
        [a for a, size in enumerate(shape) if size is None] == [0, axis] for shape in shapes
    )


def _stays(operation: Operation, axis: int, rank: int) -> bool:
    """Whether an operation that reorders axes leaves this one where it is."""
    settings = dict(operation.config or {})
    if operation.kind == "ops.Transpose":
        order = [int(a) % rank for a in settings.get("axes") or reversed(range(rank))]
    elif operation.kind == "ops.Moveaxis":
        # A probe whose axis p has size p shows where NumPy puts each axis.
        probe = np.broadcast_to(np.zeros(()), tuple(range(rank)))
        order = list(np.moveaxis(probe, settings["source"], settings["destination"]).shape)
    elif operation.kind == "ops.Swapaxes":
        order = list(range(rank))
        first, second = settings["axis1"], settings["axis2"]
        order[first], order[second] = order[second], order[first]
    else:
        return False
    return order[axis] == axis
