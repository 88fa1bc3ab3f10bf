"""The flat graph: operations, the calls made of them, and the tensors between.

A value, not a model: nothing here calls Keras. Edits make a new `Graph` from an old one.
An `Operation` with two calls is a shared layer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from keras import tree

from saikei.graph.internals import numbers
from saikei.tensors import numpy_dtype, rounding

Shape = tuple[int | None, ...]


@dataclass(frozen=True)
class TensorRef:
    """Names one output of one call of a graph."""

    call: int
    output: int


@dataclass(frozen=True)
class TensorSpec:
    """Shape (batch axis first, `None` where unknown) and dtype of a tensor.

    Args:
        shape: Batch axis first, `None` where unknown.
        dtype: The name of the dtype.
        steps: For a tensor inside a `TimeDistributed`, the number of steps of a sample, outermost
            first; `shape` is that of one step.
    """

    shape: Shape
    dtype: str
    steps: Shape = ()

    def bytes_per_sample(self) -> int:
        """Size of one sample of the tensor in bytes; unknown axes count as 1."""
        itemsize = numpy_dtype(self.dtype).itemsize
        return int(np.prod([d or 1 for d in self.shape[1:]], dtype=np.int64)) * itemsize


@dataclass(frozen=True)
class Weight:
    """One weight of an operation: its shape, and the object that holds its numbers.

    Args:
        key: Identity of the variable; two weights with one key are one tied variable.
        shape: Shape of the array.
        source: The numbers: an array, or a variable or similar object with `numpy()`.
        trainable: Whether gradients move it.
    """

    key: int
    shape: tuple[int, ...]
    source: Any = field(compare=False, repr=False)
    trainable: bool = True

    @property
    def dtype(self) -> str:
        """Name of the dtype of the numbers."""
        dtype = getattr(self.source, "dtype", None)
        return str(self.numpy().dtype if dtype is None else dtype)

    def numpy(self) -> np.ndarray:
        """The numbers, as a NumPy array that must not be written to."""
        if isinstance(self.source, np.ndarray):
            return self.source
        return numbers(self.source)

    def with_array(self, array: np.ndarray) -> Weight:
        """A weight with other numbers, perhaps of another shape, for the same variable."""
        return replace(self, shape=tuple(array.shape), source=array)


@dataclass(frozen=True)
class Quantised:
    """A quantised layer's mode, and the same layer in floating point.

    Args:
        mode: Keras's name of the mode, such as `"int8"`.
        kind: Kind of the layer in floating point.
        config: Config of the layer in floating point.
        weights: Weights of the layer in floating point; `None` where they are not known.
    """

    mode: str
    kind: str
    config: Mapping[str, Any] | None
    weights: Mapping[str, Weight] | None


# The weight that a `SpectralNormalization` has besides those of the layer that it wraps.
SPECTRAL_WEIGHT = "vector_u"


@dataclass(frozen=True)
class Spectral:
    """A `SpectralNormalization` around a layer: it scales the kernel at each step of training.

    Args:
        config: Its config, without the layer.
        source: The Keras object that it was read from.
    """

    config: Mapping[str, Any]
    source: Any = field(compare=False, repr=False)


@dataclass(frozen=True)
class Operation:
    """A layer or a `keras.ops` operation, apart from the calls made of it.

    Args:
        name: Unique in its graph.
        kind: `"Conv2D"` for Keras's layers, `"ops.Add"` for `keras.ops`,
            `"module.Class"` for anything else; with its mode for a layer that is quantised, as
            `"Dense[int8]"`. Rules are looked up by it.
        config: Config for the class's `from_config`; `None` where the object gives none.
        weights: Its weights, in the order in which the class keeps them.
        source: The Keras object that it was read from.
        untraced: Why its `call` could not be traced, for a layer of the user's own.
        quantised: Mode and floating-point form of a quantised layer; `None` for other layers.
        spectral: The `SpectralNormalization` around the layer, whose weights are then among
            `weights`; `None` where there is none.
    """

    name: str
    kind: str
    config: Mapping[str, Any] | None
    weights: Mapping[str, Weight]
    source: Any = field(compare=False, repr=False)
    untraced: str | None = None
    quantised: Quantised | None = None
    spectral: Spectral | None = None

    @property
    def layer(self) -> Any:
        """The Keras object that is called in the model that it was read from."""
        return self.source if self.spectral is None else self.spectral.source

    def bare(self) -> Operation:
        """The operation without the spectral normalisation that its kernel has in training."""
        if self.spectral is None:
            return self
        weights = {name: w for name, w in self.weights.items() if name != SPECTRAL_WEIGHT}
        return replace(self, weights=weights, spectral=None)

    def in_floats(self) -> Operation:
        """The layer in floating point, for a quantised one whose weights are known; else itself."""
        if self.quantised is None or self.quantised.weights is None:
            return self
        return replace(
            self,
            kind=self.quantised.kind,
            config=self.quantised.config,
            weights=self.quantised.weights,
            quantised=None,
        )

    @property
    def plain_kind(self) -> str:
        """The kind, without the mode of a layer that is quantised."""
        return self.kind if self.quantised is None else self.quantised.kind


@dataclass(frozen=True)
class Call:
    """One call of an operation.

    Args:
        operation: The operation's name.
        args: Positional arguments, a nested structure with `TensorRef` leaves for tensors.
        kwargs: Keyword arguments, with `TensorRef` for tensors too.
        outputs: Shape and dtype of each output tensor, flattened.
    """

    operation: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    outputs: tuple[TensorSpec, ...]

    def leaves(self) -> list[Any]:
        """All arguments, flattened: tensors as `TensorRef`, the rest as it is."""
        return list(self._leaves)

    def slots(self) -> tuple[int | str, ...]:
        """For each of `leaves`, the position or keyword of the argument that it belongs to."""
        # tree.flatten takes the entries of a dict in the order of their sorted keys.
        slots: list[tuple[int | str, Any]] = [*enumerate(self.args), *sorted(self.kwargs.items())]
        return tuple(slot for slot, value in slots for _ in tree.flatten(value))

    def inputs(self) -> list[TensorRef]:
        """The tensors that the call reads, in order."""
        return [leaf for leaf in self._leaves if isinstance(leaf, TensorRef)]

    @cached_property
    def _leaves(self) -> tuple[Any, ...]:
        # tree.flatten takes dataclasses as leaves.
        return tuple(tree.flatten((self.args, dict(self.kwargs))))


@dataclass(frozen=True)
class Graph:
    """A model as operations and calls; the calls are in an order that can be run.

    Args:
        name: The model's name.
        operations: The operations by name.
        calls: Topologically ordered; inputs are calls of kind `"InputLayer"`.
        inputs: Nested structure of `TensorRef`, as the model takes it.
        outputs: Nested structure of `TensorRef`, as the model gives it.
        marks: Records of the model's history; see `lineage`.
        ends: For layers and nested models that became several operations, by name, the operation
            whose output is theirs.
        sizes: For inputs with axes of unknown size, the shape of a sample, without the batch axis,
            for which costs are counted; see `concrete`.
    """

    name: str
    operations: Mapping[str, Operation]
    calls: tuple[Call, ...]
    inputs: Any
    outputs: Any
    marks: tuple[Any, ...] = field(default=(), compare=False, repr=False)
    sizes: Mapping[str, tuple[int, ...]] = field(default_factory=dict, compare=False, repr=False)
    ends: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)

    def spec(self, ref: TensorRef) -> TensorSpec:
        """Shape and dtype of a tensor."""
        return self.calls[ref.call].outputs[ref.output]

    def output_refs(self) -> list[TensorRef]:
        """The model's outputs, flattened."""
        return list(tree.flatten(self.outputs))

    def rounding(self) -> float:
        """The relative rounding error of the least precise floats that it computes with."""
        specs = (spec for call in self.calls for spec in call.outputs)
        return max((rounding(spec.dtype) for spec in specs), default=0.0)

    def input_refs(self) -> list[TensorRef]:
        """The model's inputs, flattened."""
        return list(tree.flatten(self.inputs))

    def variables(self) -> Iterator[Weight]:
        """Every distinct variable once, tied ones too."""
        seen: set[int] = set()
        for operation in self.operations.values():
            for weight in operation.weights.values():
                if weight.key not in seen:
                    seen.add(weight.key)
                    yield weight

    def with_operations(self, changed: Mapping[str, Operation]) -> Graph:
        """The graph with some operations replaced."""
        return replace(self, operations={**self.operations, **changed})
