"""Layers that are linear in their weights, as rows of features times a matrix."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saikei.calibration.least_squares import Matrix
from saikei.graph import Operation, Weight
from saikei.tensors import is_half, numpy_dtype

Array = NDArray[Any]
Rows = NDArray[np.int64]


class LinearForm(ABC):
    """An output row is a row of features times a matrix, plus a bias.

    Rows are the positions of the output, all samples' one after the other. Independent blocks
    of outputs (groups of a convolution) are systems of their own.
    """

    @abstractmethod
    def features(self, inputs: Array, rows: Rows) -> Array:
        """Features of the chosen rows, `(systems, rows, features)`, in the dtype of the inputs."""

    @abstractmethod
    def channels_last(self, outputs: Array) -> Array:
        """An output as `(samples, …positions, channels)`."""

    @abstractmethod
    def matrix(self, operation: Operation) -> Matrix:
        """The kernel as `(systems, features, outputs)`."""

    @abstractmethod
    def kernel(self, matrix: Matrix, shape: tuple[int, ...]) -> Matrix:
        """The inverse of `matrix`."""

    @property
    def systems(self) -> int:
        """How many independent blocks of outputs there are."""
        return 1

    def outputs(self, outputs: Array, rows: Rows) -> Matrix:
        """The chosen rows of an output, `(systems, rows, outputs)`."""
        moved = self.channels_last(outputs)
        flat = moved.reshape(-1, moved.shape[-1])[rows].astype(np.float64)
        return _systems(flat, self.systems)

    def bias(self, operation: Operation) -> Matrix:
        """The bias as `(systems, 1, outputs)`; zeros where there is none."""
        matrix = self.matrix(operation)
        if "bias" not in operation.weights:
            return np.zeros((matrix.shape[0], 1, matrix.shape[2]))
        flat = operation.weights["bias"].numpy().astype(np.float64).reshape(1, -1)
        return _systems(flat, self.systems)

    def changed(self, operation: Operation, change: Matrix) -> Operation:
        """The operation with its weights moved by a change; see `NormalEquations.solve`."""
        weights = dict(operation.weights)
        kernel = weights["kernel"]
        moved = self.kernel(self.matrix(operation) + change[:, :-1], kernel.shape)
        weights["kernel"] = _with_numbers(kernel, moved)
        if "bias" in weights:
            total = (self.bias(operation) + change[:, -1:])[:, 0].reshape(-1)
            bias = weights["bias"]
            weights["bias"] = _with_numbers(bias, total.reshape(bias.shape))
        return replace(operation, weights=weights)

    def rounded_change(self, operation: Operation, change: Matrix) -> Matrix:
        """A change, rounded as in half precision if the layer computes in it."""
        dtype = getattr(operation.source, "compute_dtype", "float32")
        if not is_half(dtype):
            return change
        total = np.concatenate([self.matrix(operation), self.bias(operation)], axis=1) + change
        with np.errstate(over="ignore"):
            rounded = total.astype(numpy_dtype(dtype)).astype(np.float64)
        return np.asarray(rounded - (total - change))


def linear_form(operation: Operation) -> LinearForm | None:
    """How to fit an operation by least squares; `None` where it is not known to be linear."""
    config = operation.config or {}
    if set(operation.bare().weights) - {"kernel", "bias"} or "kernel" not in operation.weights:
        return None
    if operation.kind == "Dense":
        return _Dense()
    if operation.kind == "EinsumDense":
        return _einsum(operation)
    if operation.kind in ("Conv1D", "Conv2D", "Conv3D"):
        return _conv(operation, config, int(config.get("groups") or 1))
    if operation.kind in ("DepthwiseConv1D", "DepthwiseConv2D"):
        return _conv(operation, config, operation.weights["kernel"].shape[-2])
    return None


def _systems(flat: Matrix, systems: int) -> Matrix:
    """`(rows, systems · n)` as `(systems, rows, n)`."""
    return flat.reshape(len(flat), systems, -1).transpose(1, 0, 2)


def _with_numbers(weight: Weight, array: Matrix) -> Weight:
    return weight.with_array(array.astype(weight.numpy().dtype))


@dataclass(frozen=True)
class _Dense(LinearForm):
    def features(self, inputs: Array, rows: Rows) -> Array:
        return inputs.reshape(-1, inputs.shape[-1])[rows][None]

    def channels_last(self, outputs: Array) -> Array:
        return outputs

    def matrix(self, operation: Operation) -> Matrix:
        return operation.weights["kernel"].numpy().astype(np.float64)[None]

    def kernel(self, matrix: Matrix, shape: tuple[int, ...]) -> Matrix:
        return matrix.reshape(shape)


@dataclass(frozen=True)
class _Einsum(LinearForm):
    """An `EinsumDense` whose kernel sums over some axes of the input and makes new ones."""

    batch_in: tuple[int, ...]
    summed_in: tuple[int, ...]
    batch_out: tuple[int, ...]
    made_out: tuple[int, ...]
    kernel_order: tuple[int, ...]

    def features(self, inputs: Array, rows: Rows) -> Array:
        moved = inputs.transpose(*self.batch_in, *self.summed_in)
        size = int(np.prod(moved.shape[len(self.batch_in) :]))
        return moved.reshape(-1, size)[rows][None]

    def channels_last(self, outputs: Array) -> Array:
        moved = outputs.transpose(*self.batch_out, *self.made_out)
        return moved.reshape(*moved.shape[: len(self.batch_out)], -1)

    def matrix(self, operation: Operation) -> Matrix:
        kernel = operation.weights["kernel"].numpy().astype(np.float64)
        moved = kernel.transpose(self.kernel_order)
        size = int(np.prod(moved.shape[: len(self.summed_in)]))
        return moved.reshape(1, size, -1)

    def kernel(self, matrix: Matrix, shape: tuple[int, ...]) -> Matrix:
        moved = matrix.reshape([shape[axis] for axis in self.kernel_order])
        return moved.transpose(np.argsort(self.kernel_order))


def _einsum(operation: Operation) -> _Einsum | None:
    equation = str((operation.config or {}).get("equation", ""))
    left, _, out = equation.replace(" ", "").partition("->")
    first, _, second = left.partition(",")
    if "." in equation:
        return None
    batch = [label for label in first if label not in second]
    summed = [label for label in first if label in second]
    made = [label for label in second if label not in first]
    plain = set(out) == set(batch + made) and len(out) == len(set(out))
    if not plain or first[0] != out[0] or not summed or not made:
        return None
    if "bias" in operation.weights:
        shape = dict(zip(second, operation.weights["kernel"].shape, strict=True))
        in_order = [label for label in out if label in made]
        sizes = [shape[label] for label in in_order]
        bias = [size for size in operation.weights["bias"].shape if size != 1]
        if in_order != made or bias != [size for size in sizes if size != 1]:
            return None
    return _Einsum(
        tuple(first.index(label) for label in batch),
        tuple(first.index(label) for label in summed),
        tuple(out.index(label) for label in batch),
        tuple(out.index(label) for label in made),
        tuple(second.index(label) for label in (*summed, *made)),
    )


@dataclass(frozen=True)
class _Conv(LinearForm):
    """A convolution: features are the patches under the kernel."""

    size: tuple[int, ...]
    strides: tuple[int, ...]
    dilation: tuple[int, ...]
    padding: str
    channels_first: bool
    groups: int
    depthwise: bool

    @property
    def systems(self) -> int:
        return self.groups

    def features(self, inputs: Array, rows: Rows) -> Array:
        given = self.channels_last(inputs)
        sizes = given.shape[1:-1]
        sample, *position = np.unravel_index(rows, (len(given), *self._positions(sizes)))
        pads = self._pads(sizes)
        starts = [p * s - pad[0] for p, s, pad in zip(position, self.strides, pads, strict=True)]
        offsets = list(itertools.product(*map(range, self.size)))
        patches = np.zeros((len(rows), len(offsets), given.shape[-1]), dtype=given.dtype)
        for tap, offset in enumerate(offsets):
            index = [
                start + o * d for start, o, d in zip(starts, offset, self.dilation, strict=True)
            ]
            inside = np.ones(len(rows), dtype=bool)
            for at, size in zip(index, sizes, strict=True):
                inside &= (at >= 0) & (at < size)
            patches[inside, tap] = given[(sample[inside], *(at[inside] for at in index))]
        grouped = patches.reshape(len(rows), len(offsets), self.groups, -1)
        return grouped.transpose(2, 0, 1, 3).reshape(self.groups, len(rows), -1)

    def channels_last(self, outputs: Array) -> Array:
        return np.moveaxis(outputs, 1, -1) if self.channels_first else outputs

    def matrix(self, operation: Operation) -> Matrix:
        kernel = operation.weights["kernel"].numpy().astype(np.float64)
        taps = int(np.prod(self.size))
        # A depthwise kernel is (…, channels, multiplier), a grouped one (…, of a group, filters).
        filters = kernel.size // taps if self.depthwise else kernel.shape[-1]
        flat = kernel.reshape(-1, self.groups, filters // self.groups)
        return flat.transpose(1, 0, 2)

    def kernel(self, matrix: Matrix, shape: tuple[int, ...]) -> Matrix:
        return matrix.transpose(1, 0, 2).reshape(shape)

    def _pads(self, sizes: tuple[int, ...]) -> list[tuple[int, int]]:
        pads = []
        for size, reach, stride in zip(sizes, self._reach(), self.strides, strict=True):
            if self.padding == "same":
                total = max((-(-size // stride) - 1) * stride + reach - size, 0)
                pads.append((total // 2, total - total // 2))
            else:
                pads.append((reach - 1, 0) if self.padding == "causal" else (0, 0))
        return pads

    def _reach(self) -> list[int]:
        return [(k - 1) * d + 1 for k, d in zip(self.size, self.dilation, strict=True)]

    def _positions(self, sizes: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(
            (size + sum(pad) - reach) // stride + 1
            for size, pad, reach, stride in zip(
                sizes, self._pads(sizes), self._reach(), self.strides, strict=True
            )
        )


def _conv(operation: Operation, config: Mapping[str, Any], groups: int) -> _Conv:
    size = operation.weights["kernel"].shape[:-2]

    def each(value: Any) -> tuple[int, ...]:
        entries = value if isinstance(value, (list, tuple)) else (value,) * len(size)
        return tuple(int(entry) for entry in entries)

    return _Conv(
        size=size,
        strides=each(config.get("strides", 1)),
        dilation=each(config.get("dilation_rate", 1)),
        padding=str(config.get("padding", "valid")),
        channels_first=config.get("data_format") == "channels_first",
        groups=groups,
        depthwise=operation.kind.startswith("Depthwise"),
    )
