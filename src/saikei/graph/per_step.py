"""The layers that a `TimeDistributed` wraps, as calls of a graph on single steps of a sequence.

A call of a `TimeDistributed` is read as `Steps`, the calls of what it wraps, and `Joined`. Between
these two, tensors have no axis of steps, so that a wrapped layer or model is treated like one that
is not wrapped. `build` wraps the calls between the two in a `TimeDistributed` again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import keras
import numpy as np
from keras import ops

from saikei.errors import ModelError
from saikei.graph import internals
from saikei.graph.flat import Call, Graph, Operation, Shape, TensorRef, TensorSpec
from saikei.rules.wrapping import JOINED, STEPS


class Steps(keras.layers.Layer):
    """`(batch, steps, …)` → `(batch · steps, …)`."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(autocast=False, **kwargs)
        self.supports_masking = True

    def call(self, x: Any, mask: Any = None) -> Any:
        """Make every step a sample, with its mask."""
        steps = _flattened(x)
        if mask is not None:
            internals.set_mask(steps, _flattened(mask))
        return steps

    def compute_output_spec(self, x: Any, *_: Any, **__: Any) -> Any:
        """The shape without the axis of the steps."""
        batch, steps, *rest = x.shape
        rows = None if batch is None or steps is None else batch * steps
        return keras.KerasTensor((rows, *rest), dtype=x.dtype)

    def compute_mask(self, _: Any, previous_mask: Any = None) -> Any:
        """The mask, reshaped like the tensor."""
        return None if previous_mask is None else _flattened(previous_mask)


class Joined(keras.layers.Layer):
    """`[(batch · steps, …), (batch, steps, …)]` → the first with the axes of the second.

    Args:
        wrapper: Config of the `TimeDistributed`, without the layer in it.
        inner: Name of the layer or model in it.
        wrapped: The `TimeDistributed` that this end was read from.
    """

    def __init__(
        self, wrapper: Mapping[str, Any], inner: str, wrapped: Any = None, **kwargs: Any
    ) -> None:
        super().__init__(autocast=False, **kwargs)
        self.wrapper, self.inner = dict(wrapper), inner
        # In a function, so that Keras does not track it as a layer of this one.
        self.wrapped: Callable[[], Any] = lambda: wrapped
        self.supports_masking = True

    def call(self, inputs: Any, **_: Any) -> Any:
        """Join the steps of each sequence again."""
        steps, whole = inputs
        sizes = [
            own if own is not None else size
            for own, size in zip(whole.shape[:2], ops.shape(whole)[:2], strict=True)
        ]
        rest = [
            own if own is not None else size
            for own, size in zip(steps.shape[1:], ops.shape(steps)[1:], strict=True)
        ]
        return ops.reshape(steps, (*sizes, *rest))

    def compute_output_spec(self, inputs: Any, *_: Any, **__: Any) -> Any:
        """The shape with the batch and the steps of the second tensor."""
        steps, whole = inputs
        return keras.KerasTensor((*whole.shape[:2], *steps.shape[1:]), dtype=steps.dtype)

    def compute_mask(self, _: Any, previous_mask: Any = None) -> Any:
        """The mask of the sequence, as `TimeDistributed` passes it on.

        Keras gives the masks of both tensors, or the one that the call was given as `mask=`.
        """
        return previous_mask[1] if isinstance(previous_mask, (list, tuple)) else previous_mask

    def get_config(self) -> dict[str, Any]:
        """The config, with the wrapper's."""
        return {**super().get_config(), "wrapper": self.wrapper, "inner": self.inner}


def _flattened(x: Any) -> Any:
    rest = [
        own if own is not None else size
        for own, size in zip(x.shape[2:], ops.shape(x)[2:], strict=True)
    ]
    return ops.reshape(x, (-1, *rest))


def ends_of(wrapper: Any, name: str) -> tuple[Steps, Joined]:
    """The two ends of what a `TimeDistributed` wraps.

    Args:
        wrapper: The `TimeDistributed` layer.
        name: Name of the first end; the second has the wrapper's name.
    """
    # Without the layer in it, which may have no config.
    config = keras.Layer.get_config(wrapper)
    return Steps(name=name), Joined(config, wrapper.layer.name, wrapper, name=wrapper.name)


def is_time_distributed(operation: Any) -> bool:
    """Whether it is a `TimeDistributed`, or of a subclass that computes the same."""
    plain = keras.layers.TimeDistributed
    methods = ("__call__", "build", "call", "compute_mask", "compute_output_shape")
    return isinstance(operation, plain) and all(
        getattr(type(operation), name) is getattr(plain, name) for name in methods
    )


def a_step_of(tensor: Any) -> Any:
    """A symbolic tensor with the shape and dtype of one step of another."""
    return keras.KerasTensor((None, *tensor.shape[2:]), dtype=tensor.dtype)


def spec_of(tensor: Any, kind: str, given: Sequence[TensorSpec]) -> TensorSpec:
    """Shape, dtype and steps of a tensor that a call makes.

    Args:
        tensor: The symbolic tensor.
        kind: Kind of the operation that makes it.
        given: Specs of the tensors that the call reads.
    """
    return TensorSpec(tuple(tensor.shape), str(tensor.dtype), steps_of(kind, given))


def steps_of(kind: str, given: Sequence[TensorSpec]) -> Shape:
    """The number of steps of a sample for which a call is made; see `TensorSpec`."""
    if kind == JOINED:
        return given[1].steps
    steps = max((spec.steps for spec in given), key=len, default=())
    return (*steps, given[0].shape[1]) if kind == STEPS else steps


def value_inputs(operation: Operation, call: Call) -> list[Any]:
    """The tensors whose values a call reads; one of which it reads only the shape is left out."""
    refs = call.inputs()
    return refs[:1] if operation.kind == JOINED else refs


Region: TypeAlias = tuple[int, ...]


def regions_of(operations: Mapping[str, Operation], calls: Sequence[Call]) -> tuple[Region, ...]:
    """For each call, the calls of `Steps` that open the regions around it, outermost first.

    A call of `Steps` belongs to the region that it opens, one of `Joined` does not.
    """
    found: list[Region] = []
    for index, call in enumerate(calls):
        kind, refs = operations[call.operation].kind, call.inputs()
        if kind == JOINED:
            found.append(found[refs[1].call])
            continue
        around = max((found[ref.call] for ref in refs), key=len, default=())
        found.append((*around, index) if kind == STEPS else around)
    return tuple(found)


def wrapped_by(graph: Graph, name: str) -> tuple[str, ...]:
    """The layers that a `TimeDistributed` of that name wraps; none for any other name."""
    if name not in graph.operations or graph.operations[name].kind != JOINED:
        return ()
    regions = regions_of(graph.operations, graph.calls)
    ends = [call.inputs() for call in graph.calls if call.operation == name]
    opened = {regions[refs[0].call][len(regions[refs[1].call])] for refs in ends}
    inside = [
        call.operation
        for index, call in enumerate(graph.calls)
        if opened & set(regions[index]) and index not in opened
    ]
    kinds = {one: graph.operations[one].kind for one in inside}
    return tuple(one for one, kind in kinds.items() if kind not in (STEPS, JOINED))


@dataclass(frozen=True)
class Wrapped:
    """The computation of a `TimeDistributed` for a step.

    Args:
        calls: A value that is equal for two calls that compute the same; see `wrapped_calls`.
        alone: Name of the layer if it is only one; `None` where it takes a model.
    """

    calls: Any
    alone: str | None


def wrapped_calls(graph: Graph, regions: Sequence[Region], result: TensorRef) -> Wrapped:
    """The calls by which a tensor is computed from a step.

    Raises:
        ModelError: When it needs a tensor from outside that is not the step.
    """
    start = regions[result.call][-1]
    needed, stack = {start}, [result.call]
    while stack:
        index = stack.pop()
        if index in needed:
            continue
        if start not in regions[index]:
            raise ModelError(
                f"Layer '{graph.calls[index].operation}' is called once for a sample and read by "
                "a layer that is called for every step of it, which no TimeDistributed can do: "
                "exclude the layers around it."
            )
        needed.add(index)
        stack.extend(ref.call for ref in graph.calls[index].inputs())
    order = {index: number for number, index in enumerate(sorted(needed))}
    calls = [graph.calls[index] for index in order if index != start]
    content = [(call.operation, _plain(call, order)) for call in calls]
    alone = None
    if len(order) == 2:
        call = graph.calls[result.call]
        layer = isinstance(graph.operations[call.operation].source, keras.Layer)
        plain = call.args == (TensorRef(start, 0),) and not call.kwargs
        alone = call.operation if layer and plain else None
    return Wrapped((graph.spec(TensorRef(start, 0)), content, result.output), alone)


def _plain(call: Call, order: Mapping[int, int]) -> list[Any]:
    """The arguments of a call as values that are equal when they are the same."""
    plain: list[Any] = []
    for slot, leaf in zip(call.slots(), call.leaves(), strict=True):
        if isinstance(leaf, TensorRef):
            plain.append((slot, order[leaf.call], leaf.output))
        elif isinstance(leaf, np.ndarray):
            plain.append((slot, leaf.shape, str(leaf.dtype), leaf.tobytes()))
        else:
            plain.append((slot, leaf))
    return plain
