"""What comes out of a model: shapes, structure, and the activation each output went through."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import tree

from saikei.graph import Call, Graph, Operation, TensorRef, read
from saikei.rules.wrapping import JOINED, STEPS

# Operations after which a softmax output is still one: they move values, or leave them alone.
_TRANSPARENT = frozenset(
    {
        JOINED,
        "Dropout",
        "Flatten",
        "Identity",
        "Permute",
        "RepeatVector",
        "Reshape",
        "SpatialDropout1D",
        STEPS,
    }
    | {"ops.Cast", "ops.Flatten", "ops.Identity", "ops.Reshape", "ops.Squeeze"}
)
# The weight of a layer that looks tokens up.
_TABLE = "embeddings"
_KIND_TO_ACTIVATION: Mapping[str, str] = {
    "Softmax": "softmax",
    "ops.Softmax": "softmax",
    "ops.Sigmoid": "sigmoid",
    "ReLU": "relu",
    "ops.Relu": "relu",
    "ops.LogSoftmax": "log_softmax",
    "ops.LogSigmoid": "log_sigmoid",
    "ops.Tanh": "tanh",
}


@dataclass(frozen=True)
class Output:
    """One output of a model.

    Args:
        shape: Batch axis first, `None` where unknown.
        activation: The last activation, such as `"softmax"`; `"linear"` where there is none. A
            mean of outputs with one activation has that activation: a mean of probabilities is
            a probability.
    """

    shape: tuple[int | None, ...]
    activation: str


@dataclass(frozen=True)
class Outputs:
    """All outputs of a model.

    Args:
        structure: How the model nests them (a leaf, list, tuple or dict).
        each: The outputs, flattened.
    """

    structure: Any
    each: tuple[Output, ...]

    def pack(self, flat: Sequence[Any]) -> Any:
        """Put one value for each output into the structure of the outputs."""
        return tree.pack_sequence_as(self.structure, list(flat))


def read_outputs(model: keras.Model | Graph) -> Outputs:
    """Look at what comes out of a model.

    Args:
        model: A built Functional or Sequential model, or its graph, where it was read already.

    Raises:
        ModelError: When the model is none, is not built, or has no graph that can be read.
    """
    graph = model if isinstance(model, Graph) else read(model)
    each = tuple(
        Output(graph.spec(ref).shape, _of_tensor(graph, ref)) for ref in graph.output_refs()
    )
    return Outputs(graph.outputs, each)


def predicts_tokens(model: keras.Model) -> bool:
    """Whether a model is a language model: at each position it has a class for each token.

    Its one output is then `(batch, length, classes)`, with as many classes as a table of embeddings
    has entries.

    Args:
        model: A built model.

    Raises:
        ModelError: When it has no graph that can be read.
    """
    graph = read(model)
    shapes = [graph.spec(ref).shape for ref in graph.output_refs()]
    tables = [op.weights[_TABLE] for op in graph.operations.values() if _TABLE in op.weights]
    classes = shapes[0][-1] if len(shapes) == 1 and len(shapes[0]) == 3 else None
    return any(table.shape[0] == classes for table in tables)


def _of_tensor(graph: Graph, ref: TensorRef) -> str:
    call = graph.calls[ref.call]
    operation = graph.operations[call.operation]
    own = _of_operation(operation)
    if own != "linear":
        return own
    if operation.kind in _TRANSPARENT or operation.kind == "Activation":
        return _of_tensor(graph, call.inputs()[0])
    if _is_reordered(graph, operation, call):
        return _of_tensor(graph, call.inputs()[0])
    if _is_complement(operation) and _of_tensor(graph, call.inputs()[0]) == "sigmoid":
        return "sigmoid"
    if operation.kind == "Average" or _is_weighted_mean(graph, operation, call):
        return _agreed(graph, call.inputs())
    if operation.kind == "ops.Where":
        # The first is the condition.
        return _agreed(graph, call.inputs()[1:]) if len(call.inputs()) == 3 else "linear"
    return "linear"


def _is_reordered(graph: Graph, operation: Operation, call: Call) -> bool:
    """Whether all the classes are taken, in some order: `keras.ops.take(x, order, axis=-1)`."""
    if operation.kind != "ops.Take" or len(call.inputs()) != 1:
        return False
    ref = call.inputs()[0]
    rank, width = len(graph.spec(ref).shape), graph.spec(ref).shape[-1]
    config, others = operation.config or {}, [one for one in call.args if one != ref]
    order = call.kwargs.get("indices", others[0] if others else None)
    if config.get("axis") not in (-1, rank - 1) or not isinstance(order, (list, tuple, np.ndarray)):
        return False
    return width is not None and np.array_equal(np.sort(np.asarray(order)), np.arange(width))


def _is_complement(operation: Operation) -> bool:
    """`1 - p`, the probability of the other class."""
    config = operation.config or {}
    numbers = config.get("scale"), config.get("offset")
    return operation.kind == "Rescaling" and numbers == (-1, 1)


def _of_operation(operation: Operation) -> str:
    if operation.kind in _KIND_TO_ACTIVATION:
        return _KIND_TO_ACTIVATION[operation.kind]
    if operation.config is None:
        return "linear"
    activation = operation.config.get("activation")
    if activation is None:
        return "linear"
    return activation if isinstance(activation, str) else _name_of(activation)


def _name_of(activation: Any) -> str:
    if isinstance(activation, Mapping):
        config = activation.get("config")
        named = config if isinstance(config, str) else activation.get("class_name")
        return str(named).lower()
    return str(getattr(activation, "__name__", activation))


def mean_terms(graph: Graph, ref: TensorRef) -> list[tuple[TensorRef, float]] | None:
    """What a tensor is the weighted mean of, and the weights; `None` where it is no mean.

    Args:
        graph: The graph of a model.
        ref: A tensor of it: the output of an `Average`, or of an `Add` of `Rescaling` layers
            whose scales sum to 1, each one number.
    """
    call = graph.calls[ref.call]
    kind, inputs = graph.operations[call.operation].kind, call.inputs()
    if kind == "Average":
        return [(term, 1 / len(inputs)) for term in inputs]
    if not _is_weighted_mean(graph, graph.operations[call.operation], call):
        return None
    scales = [scale for term in inputs if (scale := _scale(graph, term)) is not None]
    if any(scale.size > 1 for scale in scales):
        return None
    below = [graph.calls[term.call].inputs()[0] for term in inputs]
    return [(term, float(scale[0])) for term, scale in zip(below, scales, strict=True)]


def _agreed(graph: Graph, refs: Sequence[TensorRef]) -> str:
    """The one activation of all tensors of a mean or choice; `"linear"` where they differ."""
    activations = {_of_tensor(graph, _below_rescaling(graph, ref)) for ref in refs}
    return activations.pop() if len(activations) == 1 else "linear"


def _below_rescaling(graph: Graph, ref: TensorRef) -> TensorRef:
    # Looked through only as a part of a weighted mean: alone it changes the range.
    return ref if _scale(graph, ref) is None else graph.calls[ref.call].inputs()[0]


def _is_weighted_mean(graph: Graph, operation: Operation, call: Call) -> bool:
    """An `Add` of `Rescaling` layers whose scales sum to 1, for each class where they differ."""
    if operation.kind != "Add":
        return False
    scales = [scale for ref in call.inputs() if (scale := _scale(graph, ref)) is not None]
    return len(scales) == len(call.inputs()) and bool(np.allclose(sum(scales), 1.0))


def _scale(graph: Graph, ref: TensorRef) -> np.ndarray[Any, np.dtype[np.float64]] | None:
    operation = graph.operations[graph.calls[ref.call].operation]
    config = operation.config or {}
    scale, offset = config.get("scale"), config.get("offset", 0.0)
    if operation.kind != "Rescaling" or offset != 0.0:
        return None
    numbers = scale if isinstance(scale, (list, tuple)) else [scale]
    if not all(isinstance(number, (int, float)) for number in numbers):
        return None
    return np.array(numbers, dtype=np.float64)
