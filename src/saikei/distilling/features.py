"""Which tensors inside a student are to be like which inside its teacher."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal, TypeVar

from saikei.errors import InputError, ModelError
from saikei.graph import Call, Graph, TensorRef, value_inputs
from saikei.rules.wrapping import JOINED, STEPS

Features = Literal["auto"] | Mapping[str, str]

DEPTHS = 4

# Their outputs hold nothing that their inputs do not, or are random during training.
_TRIVIAL = frozenset(
    {"ActivityRegularization", "AlphaDropout", "Dropout", "Flatten", "GaussianDropout"}
    | {"GaussianNoise", "Identity", "InputLayer", "Permute", "Reshape", "SpatialDropout1D"}
    | {"SpatialDropout2D", "SpatialDropout3D", "ops.Flatten", "ops.Identity", "ops.Reshape"}
    | {"ops.Transpose", JOINED, STEPS}
)

_T = TypeVar("_T")


@dataclass(frozen=True)
class Feature:
    """One tensor inside a model, of one call of one layer.

    Args:
        layer: The layer's name.
        ref: The tensor in the model's graph.
        channel_axis: 1 or -1.
        shape: Without the batch axis and with channels last: `(*positions, channels)`.
        dtype: The type of the tensor.
    """

    layer: str
    ref: TensorRef
    channel_axis: int
    shape: tuple[int | None, ...]
    dtype: str

    @property
    def channels(self) -> int:
        """The size of the channel axis; one of unknown size is no feature."""
        return self.shape[-1] or 0

    def bytes_per_sample(self) -> int | None:
        """Its size in float32; `None` where that depends on the sample."""
        sizes = [size for size in self.shape if size is not None]
        return 4 * math.prod(sizes) if len(sizes) == len(self.shape) else None


@dataclass(frozen=True)
class Pair:
    """A feature of the student and the feature of the teacher that it learns from."""

    student: Feature
    teacher: Feature

    def positions(self) -> tuple[int | None, ...]:
        """The sizes that both are averaged down to; `None` where a size is unknown."""
        both = zip(self.student.shape[:-1], self.teacher.shape[:-1], strict=True)
        return tuple(None if a is None or b is None else min(a, b) for a, b in both)


def pair_features(student: Graph, teacher: Graph, features: Features) -> tuple[Pair, ...]:
    """Decide which tensors are compared.

    Args:
        student: The student's graph.
        teacher: The teacher's graph.
        features: `"auto"`, or student layer → teacher layer.

    Raises:
        InputError: When a layer does not exist, is called more than once, gives several
            tensors or none of floating point, or two tensors cannot be compared.
        ModelError: When `"auto"` finds nothing to compare.
    """
    if isinstance(features, Mapping):
        return _given(student, teacher, features)
    if features != "auto":
        raise InputError(
            f'features={features!r}: give "auto", a dict of student layer → teacher layer, or None.'
        )
    pairs = _auto(student, teacher)
    if not pairs:
        raise ModelError(
            f"Student '{student.name}' and teacher '{teacher.name}' have no layers of the same "
            "name before their outputs that can be compared: give features={student layer: "
            "teacher layer}."
        )
    return pairs


def _given(student: Graph, teacher: Graph, features: Mapping[str, str]) -> tuple[Pair, ...]:
    if not features:
        raise InputError("features={} names no layers: name some, or give None.")
    pairs = []
    for ours, theirs in features.items():
        pair = Pair(_named(student, ours, "student"), _named(teacher, theirs, "teacher"))
        problem = _mismatch(pair)
        if problem:
            raise InputError(f"features={{'{ours}': '{theirs}'}} cannot be compared: {problem}.")
        pairs.append(pair)
    return tuple(pairs)


def _named(graph: Graph, layer: str, role: str) -> Feature:
    found = _feature(graph, layer)
    if isinstance(found, Feature):
        return found
    raise InputError(f"features name layer '{layer}' of {role} '{graph.name}', {found}.")


def _feature(graph: Graph, layer: str) -> Feature | str:
    """What a layer gives; or why that cannot be compared, as the end of a sentence."""
    if layer not in graph.operations:
        near = difflib.get_close_matches(str(layer), graph.operations, n=1, cutoff=0.0)
        return f"which it does not have: did you mean '{near[0]}'?"
    calls = [index for index, call in enumerate(graph.calls) if call.operation == layer]
    if len(calls) > 1:
        return (
            f"which is called {len(calls)} times, so that it is not clear which tensor is meant: "
            "name a layer that is called once, such as one right behind it"
        )
    call = graph.calls[calls[0]]
    if len(call.outputs) != 1:
        return f"which gives {len(call.outputs)} tensors: name a layer that gives one"
    ref, spec = TensorRef(calls[0], 0), call.outputs[0]
    if spec.steps:
        # What a TimeDistributed gives can be compared, and nothing on the way there.
        ends = [at for at, one in enumerate(graph.calls) if _gives(graph, one, ref)]
        if len(ends) != 1 or graph.calls[ends[0]].outputs[0].steps:
            return "which is called for every step of a sequence: name a layer around it"
        ref, spec = TensorRef(ends[0], 0), graph.calls[ends[0]].outputs[0]
    if "float" not in spec.dtype:
        return f"which gives {spec.dtype}, not floating-point numbers: name another"
    axis = _channel_axis(graph, ref)
    shape = list(spec.shape[1:])
    if axis == 1 and shape:
        shape.append(shape.pop(0))
    if not shape or shape[-1] is None:
        return f"whose output of shape {spec.shape} has no channels of known number: name another"
    return Feature(layer, ref, axis, tuple(shape), spec.dtype)


def _gives(graph: Graph, call: Call, ref: TensorRef) -> bool:
    """Whether a call gives what a `TimeDistributed` around a tensor gives."""
    operation = graph.operations[call.operation]
    return operation.kind == JOINED and value_inputs(operation, call) == [ref]


def _channel_axis(graph: Graph, ref: TensorRef) -> int:
    """1 where the last layer on the way to a tensor that has a data format has channels first.

    Layers such as activations and sums have none; they leave channels where they were.
    """
    rank = len(graph.spec(ref).shape)
    if rank < 3:
        return -1
    seen: set[TensorRef] = set()
    stack = [ref]
    while stack:
        here = stack.pop()
        if here in seen or len(graph.spec(here).shape) != rank:
            continue
        seen.add(here)
        call = graph.calls[here.call]
        placed = (graph.operations[call.operation].config or {}).get("data_format")
        if placed is not None:
            return 1 if placed == "channels_first" else -1
        stack.extend(value_inputs(graph.operations[call.operation], call))
    return -1


def _mismatch(pair: Pair) -> str | None:
    ours, theirs = pair.student, pair.teacher
    if len(ours.shape) != len(theirs.shape):
        return (
            f"layer '{ours.layer}' of the student has {len(ours.shape)} axes a sample, "
            f"{ours.shape}, but layer '{theirs.layer}' of the teacher has {len(theirs.shape)}, "
            f"{theirs.shape}: name layers of the same number of axes"
        )
    both = list(zip(ours.shape[:-1], theirs.shape[:-1], strict=True))
    if any((a is None) != (b is None) for a, b in both):
        return (
            f"of the sizes {ours.shape} and {theirs.shape} one is known and the other is not: "
            "give both models inputs of a fixed size, or name other layers"
        )
    return None


def _auto(student: Graph, teacher: Graph) -> tuple[Pair, ...]:
    """The ends of stages: of layers in sequence that have the same resolution.

    A network of one stage (dense, recurrent, a transformer) is compared between its residual
    branches where it has some, and otherwise anywhere, at even distances.
    """
    inner = _inner(student) & _inner(teacher)
    pairs = []
    for call in teacher.calls:
        if call.operation in inner:
            ours, theirs = (_feature(graph, call.operation) for graph in (student, teacher))
            if isinstance(ours, Feature) and isinstance(theirs, Feature):
                pair = Pair(ours, theirs)
                pairs += [] if _mismatch(pair) else [pair]
    stages = [list(stage) for _, stage in groupby(pairs, lambda pair: pair.teacher.shape[:-1])]
    if len(stages) != 1:
        return _spread([stage[-1] for stage in stages])
    kinds = {name: operation.kind for name, operation in teacher.operations.items()}
    sums = [pair for pair in pairs if kinds[pair.teacher.layer] in ("Add", "ops.Add")]
    return _spread(sums if len(sums) > 1 else pairs)


def _spread(items: Sequence[_T]) -> tuple[_T, ...]:
    count = min(len(items), DEPTHS)
    return tuple(items[(i + 1) * len(items) // count - 1] for i in range(count))


def _inner(graph: Graph) -> set[str]:
    """Layers between the first kernel and the last on each path that compute something new."""
    learned = _behind_a_kernel(graph)
    on_outputs: set[int] = set()
    stack = [ref.call for ref in graph.output_refs()]
    while stack:
        index = stack.pop()
        on_outputs.add(index)
        if not _has_kernel(graph, index):
            stack.extend(ref.call for ref in graph.calls[index].inputs())
    return {
        call.operation
        for index, call in enumerate(graph.calls)
        if index in learned
        and index not in on_outputs
        and graph.operations[call.operation].kind not in _TRIVIAL
    }


def _behind_a_kernel(graph: Graph) -> set[int]:
    behind: set[int] = set()
    for index, call in enumerate(graph.calls):
        if _has_kernel(graph, index) or any(ref.call in behind for ref in call.inputs()):
            behind.add(index)
    return behind


def _has_kernel(graph: Graph, call: int) -> bool:
    weights = graph.operations[graph.calls[call].operation].weights
    return any(len(weight.shape) > 1 for weight in weights.values())
