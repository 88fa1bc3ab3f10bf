"""Calls that give back what they are given, at inference."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from keras import tree

from saikei.edits.folding.readers import forced_to_train, makes_masks, passes_masks
from saikei.graph import Call, Graph, Operation, TensorRef
from saikei.graph.training_only import AUGMENTATION, TRAINING_ONLY

# Applied to its own output, each of these changes nothing.
_IDEMPOTENT = {"relu", "relu6", "hard_tanh"}
_NOT_NEGATIVE = {"relu", "relu6", "sigmoid", "hard_sigmoid", "softmax", "softplus", "exponential"}


def is_no_op(graph: Graph, index: int) -> bool:
    """Whether a call's one output is its one input, in value, shape and dtype."""
    call = graph.calls[index]
    operation = graph.operations[call.operation]
    refs = call.inputs()
    if len(refs) != 1 or call.outputs != (graph.spec(refs[0]),):
        return False
    if operation.kind in TRAINING_ONLY:
        return operation.kind in AUGMENTATION or not forced_to_train(call)
    test = _TESTS.get(operation.kind)
    if test is None or not test(_Case(graph, call, operation)):
        return False
    return passes_masks(operation) or not makes_masks(graph)


@dataclass(frozen=True)
class _Case:
    """A call of the kind in question that keeps shape and dtype."""

    graph: Graph
    call: Call
    operation: Operation

    @property
    def config(self) -> Mapping[str, Any]:
        return self.operation.config or {}

    def all(self, key: str, value: object) -> bool:
        """Whether a config entry is the value, or nested and full of it."""
        return all(leaf == value for leaf in tree.flatten(self.config[key]))


def _always(case: _Case) -> bool:
    return True


def _entries(**expected: object) -> Callable[[_Case], bool]:
    return lambda case: all(case.all(key, value) for key, value in expected.items())


def _reshape(case: _Case) -> bool:
    # With two unknown axes, elements could move from one to the other.
    return sum(size is None for size in case.call.outputs[0].shape[1:]) <= 1


def _ops_reshape(case: _Case) -> bool:
    return sum(size is None for size in case.call.outputs[0].shape) <= 1


def _permute(case: _Case) -> bool:
    dims = tuple(case.config["dims"])
    return dims == tuple(range(1, len(dims) + 1))


def _transpose(case: _Case) -> bool:
    axes = case.config.get("axes")
    return axes is not None and tuple(axes) == tuple(range(len(axes)))


def _activation(case: _Case) -> bool:
    """A linear activation, or one whose input has gone through it already."""
    name = activation_name(case.operation)
    if name == "linear":
        return True
    before = activation_name(_maker(case.graph, case.call.inputs()[0]))
    return (name in _IDEMPOTENT and before == name) or (name == "relu" and before in _NOT_NEGATIVE)


def _maker(graph: Graph, ref: TensorRef) -> Operation:
    """The operation that made a tensor, before those that do nothing."""
    while graph.calls[ref.call].inputs() and is_no_op(graph, ref.call):
        ref = graph.calls[ref.call].inputs()[0]
    return graph.operations[graph.calls[ref.call].operation]


def activation_name(operation: Operation) -> str | None:
    """The function that an operation applies last, by Keras's name; `None` where it is unknown."""
    config = operation.config or {}
    if operation.kind.startswith("ops."):
        return {"ops.Relu": "relu", "ops.Relu6": "relu6", "ops.Sigmoid": "sigmoid"}.get(
            operation.kind
        )
    if operation.kind == "ReLU":
        plain = not config["negative_slope"] and not config["threshold"]
        return {None: "relu", 6.0: "relu6"}.get(config["max_value"]) if plain else None
    if operation.kind in _APPLY_THEIR_ACTIVATION_LAST:
        name = config.get("activation")
        return name if isinstance(name, str) else None
    return None


# In other layers, such as recurrent ones, the activation is not applied last.
_APPLY_THEIR_ACTIVATION_LAST = {
    "Activation",
    "Conv1D",
    "Conv1DTranspose",
    "Conv2D",
    "Conv2DTranspose",
    "Conv3D",
    "Conv3DTranspose",
    "Dense",
    "DepthwiseConv1D",
    "DepthwiseConv2D",
    "EinsumDense",
    "SeparableConv1D",
    "SeparableConv2D",
}
_TESTS: dict[str, Callable[[_Case], bool]] = {
    "Activation": _activation,
    "Flatten": _always,
    "Identity": _always,
    "Permute": _permute,
    "ReLU": _activation,
    "Rescaling": _entries(scale=1, offset=0),
    "Reshape": _reshape,
    "ops.Cast": _always,
    "ops.Relu": _activation,
    "ops.Relu6": _activation,
    "ops.Reshape": _ops_reshape,
    "ops.Transpose": _transpose,
}
for _rank in "123":
    _TESTS[f"AveragePooling{_rank}D"] = _entries(pool_size=1, strides=1)
    _TESTS[f"Cropping{_rank}D"] = _entries(cropping=0)
    _TESTS[f"MaxPooling{_rank}D"] = _entries(pool_size=1, strides=1)
    _TESTS[f"UpSampling{_rank}D"] = _entries(size=1)
    _TESTS[f"ZeroPadding{_rank}D"] = _entries(padding=0)


def around(graph: Graph, index: int) -> tuple[TensorRef, TensorRef]:
    """The output of a call that is a no-op, and the tensor to read instead."""
    return TensorRef(index, 0), graph.calls[index].inputs()[0]
