"""Tensors of all samples, and functions of them that are computed a few samples at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import keras
import numpy as np
from keras import tree
from numpy.typing import NDArray

from saikei.graph.internals import mask_of, set_mask
from saikei.tensors import to_numpy

# Samples that a layer computes at once: as many as have so many bytes, within limits.
BATCH_BYTES, FEWEST, MOST = 2**23, 16, 512
Array: TypeAlias = NDArray[Any]


@dataclass(frozen=True)
class Value:
    """A tensor of all samples.

    Args:
        array: One sample a row.
        mask: The steps that count, booleans; `None` where no layer attached a mask.
    """

    array: Array
    mask: Array | None = None

    def rows(self, rows: slice) -> Value:
        """Some of the samples."""
        return Value(self.array[rows], None if self.mask is None else self.mask[rows])

    @classmethod
    def joined(cls, values: Sequence[Value]) -> Value:
        """The samples of several parts, one part after the other."""
        if len(values) == 1:
            return values[0]
        masks = [value.mask for value in values]
        return cls(
            np.concatenate([value.array for value in values]),
            None if masks[0] is None else np.concatenate([m for m in masks if m is not None]),
        )


def in_batches(
    run: Callable[[list[Any]], Any], arguments: list[Any], samples: int
) -> tuple[Value, ...]:
    """Run on slices of the tensors among the arguments, and join what comes out.

    Tensors whose first axis is not the batch cannot be sliced; then all samples run at once.
    """
    tensors = [a for a in arguments if isinstance(a, Value)]
    parts: list[list[Value]] = []
    sliceable = all(t.array.ndim > 0 and len(t.array) == samples for t in tensors)
    size = _batch_size(tensors, samples) if sliceable else max(samples, 1)
    for start in range(0, samples, size):
        stop = min(start + size, samples)
        given = [
            tensor_of(a, slice(start, stop) if sliceable else None) if isinstance(a, Value) else a
            for a in arguments
        ]
        outputs = [value_of(tensor) for tensor in tree.flatten(run(given))]
        if any(o.array.ndim == 0 or len(o.array) != stop - start for o in outputs):
            whole = [tensor_of(a, None) if isinstance(a, Value) else a for a in arguments]
            return tuple(value_of(tensor) for tensor in tree.flatten(run(whole)))
        parts.append(outputs)
    return tuple(map(Value.joined, zip(*parts, strict=True)))


def _batch_size(tensors: list[Value], samples: int) -> int:
    each = sum(tensor.array.nbytes for tensor in tensors) // max(samples, 1)
    return min(max(BATCH_BYTES // max(each, 1), FEWEST), MOST)


def tensor_of(value: Value, rows: slice | None) -> Any:
    """Some of the samples as a tensor of the backend with its mask, or all as they are."""
    tensor = keras.ops.convert_to_tensor(value.array if rows is None else value.array[rows])
    if value.mask is not None:
        set_mask(
            tensor, keras.ops.convert_to_tensor(value.mask if rows is None else value.mask[rows])
        )
    return tensor


def value_of(tensor: Any) -> Value:
    """A tensor of the backend as arrays."""
    mask = mask_of(tensor)
    return Value(
        to_numpy(tensor),
        None if mask is None else to_numpy(mask),
    )


def is_plain(value: Value) -> bool:
    """Whether functions of `saikei.calibration.direct` take it."""
    return value.mask is None and value.array.dtype == np.float32 and value.array.ndim > 1


def is_plain_tensor(tensor: Any) -> bool:
    """The same of a tensor of the backend."""
    float32 = keras.backend.standardize_dtype(tensor.dtype) == "float32"
    return float32 and len(tensor.shape) > 1 and mask_of(tensor) is None
