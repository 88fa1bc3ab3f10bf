"""What replaces functions of Keras while a `call` is traced, so that they take symbolic tensors.

Functions that take shapes express what they do with a `Dimension` by operations that need no size:
`arange(n)` is a cumulative sum of ones along the axis whose size is `n`, `broadcast_to` multiplies
by ones. The graph then runs on any length and on any backend. `tril` and `triu` compare the numbers
of rows and columns: Keras's fail on TensorFlow for an offset beyond the matrix, and take no
symbolic offset. `keras.activations.mish`, `hard_silu` and its other name `hard_swish` call the
backend at once, and are written as operations.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import keras
import numpy as np

from saikei.graph.dimensions import ORIGINAL, Dimension, has_dimension, joined_its_batch, plain


def _shape(x: Any) -> Any:
    if not isinstance(x, keras.KerasTensor):
        return ORIGINAL["shape"](x)
    return tuple(Dimension(x, a) if s is None else s for a, s in enumerate(x.shape))


def _ndim(x: Any) -> Any:
    return len(x.shape) if isinstance(x, keras.KerasTensor) else ORIGINAL["ndim"](x)


def _arange(start: Any, stop: Any = None, step: Any = None, dtype: Any = None) -> Any:
    if stop is None:
        start, stop = 0, start
    if not isinstance(stop, Dimension):
        return ORIGINAL["arange"](start, stop, step, dtype=dtype)
    if start != 0 or step not in (None, 1):
        raise TypeError("it counts to an unknown size from another start or in other steps")
    return stop.indices(dtype or "int32")


def _broadcast_to(x: Any, shape: Any) -> Any:
    target = tuple(shape)
    if not has_dimension(target):
        return ORIGINAL["broadcast_to"](x, shape)
    if not keras.ops.is_tensor(x) and not isinstance(x, keras.KerasTensor):
        x = ORIGINAL["convert_to_tensor"](x)
    own = (*(1,) * (len(target) - len(x.shape)), *x.shape)
    # An axis that is unknown already has that size, or nothing could have been broadcast.
    static = [
        s if isinstance(s, int) and s != size else 1 for s, size in zip(target, own, strict=True)
    ]
    dtype = keras.backend.standardize_dtype(x.dtype)
    merge = ORIGINAL["logical_and" if dtype == "bool" else "multiply"]
    for axis, (size, now) in enumerate(zip(target, own, strict=True)):
        if isinstance(size, Dimension) and now == 1:
            ones = ORIGINAL["reshape"](size.ones(dtype), _along(axis, len(target)))
            x = merge(x, ones)
    if len(x.shape) < len(target) or any(size > 1 for size in static):
        x = merge(x, np.ones(static, dtype="bool" if dtype == "bool" else "int8").astype(dtype))
    return x


def _along(axis: int, rank: int) -> tuple[int, ...]:
    return tuple(-1 if a == axis else 1 for a in range(rank))


def _ones(shape: Any, dtype: Any = None) -> Any:
    return _full(shape, 1, dtype or keras.config.floatx())


def _zeros(shape: Any, dtype: Any = None) -> Any:
    return _full(shape, 0, dtype or keras.config.floatx())


def _full(shape: Any, fill_value: Any, dtype: Any = None) -> Any:
    if not has_dimension(shape):
        return ORIGINAL["full"](shape, fill_value, dtype=dtype)
    dtype = keras.backend.standardize_dtype(dtype or keras.config.floatx())
    value = ORIGINAL["cast"](ORIGINAL["convert_to_tensor"](fill_value), dtype)
    return _broadcast_to(value, shape)


def _reshape(x: Any, newshape: Any) -> Any:
    target = tuple(newshape) if isinstance(newshape, (list, tuple)) else (newshape,)
    target = _rest_filled(x, target)
    known = [size for size in target if isinstance(size, int) and size != -1]
    if any(isinstance(size, keras.KerasTensor) for size in target):
        raise TypeError("it reshapes to a size that is computed from unknown ones")
    unknown = len(target) - len(known)
    if unknown == sum(size == -1 for size in target if isinstance(size, int)):
        return ORIGINAL["reshape"](x, newshape)
    if unknown == 1:
        return ORIGINAL["reshape"](x, tuple(s if isinstance(s, int) else -1 for s in target))
    own = x.shape
    if own[0] is None and not isinstance(target[0], int) and unknown == 2:
        if isinstance(target[0], Dimension) and target[0].axis != 0:
            raise TypeError("it reshapes to unknown sizes in another order")
        if joined_its_batch(x):
            raise TypeError("it takes an axis apart that it joined from several of unknown size")
        # Keras's layer keeps the batch axis, so that one other axis may be unknown.
        rest = tuple(s if isinstance(s, int) else -1 for s in target[1:])
        return keras.layers.Reshape(rest, dtype=x.dtype)(x)
    if math.prod(known) == math.prod(s for s in own if s is not None) and len(own) == len(target):
        same = [s == n for s, n in zip(own, target, strict=True) if isinstance(n, int) and n != -1]
        if all(same):
            return x
    raise TypeError(f"it reshapes {tuple(own)} to several sizes that are unknown until data comes")


def _rest_filled(x: Any, target: tuple[Any, ...]) -> tuple[Any, ...]:
    """The target with a size in the place of -1, where its unknown sizes are those of `x`.

    `reshape(x, (batch, length, -1))` joins the heads of `x`, if that has the two as its first.
    """
    unknown = [a for a, size in enumerate(target) if isinstance(size, Dimension)]
    here = [a for a, size in enumerate(x.shape) if size is None]
    whole = all(isinstance(size, (int, Dimension)) for size in target)
    rests = sum(isinstance(size, int) and size == -1 for size in target)
    if not whole or not here or unknown != here or rests != 1:
        return target
    if any(target[a].axis != a for a in unknown) or joined_its_batch(x):
        return target
    size = math.prod(s for s in x.shape if s is not None)
    rest, over = divmod(size, math.prod(s for s in target if isinstance(s, int) and s != -1))
    if over:
        return target
    return tuple(rest if isinstance(s, int) and s == -1 else s for s in target)


def _slice(inputs: Any, start_indices: Any, shape: Any) -> Any:
    if not has_dimension(shape):
        return ORIGINAL["slice"](inputs, start_indices, shape)
    for axis, (start, size) in enumerate(zip(start_indices, shape, strict=True)):
        inputs = _part(inputs, axis, start, size)
    return inputs


def _part(x: Any, axis: int, start: Any, size: Any) -> Any:
    """`size` indices of an axis from `start` on."""
    if not isinstance(size, Dimension):
        whole = start == 0 and size == x.shape[axis]
        if whole:
            return x
        return x[(*(slice(None),) * axis, slice(start, start + size))]
    if size.tensor is x and size.axis == axis and start == 0:
        return x
    positions = size.indices("int32")
    if not isinstance(start, int) or start != 0:
        positions = ORIGINAL["add"](positions, start)
    return ORIGINAL["take"](x, positions, axis=axis)


def _tile(x: Any, repeats: Any) -> Any:
    if not has_dimension(repeats):
        return ORIGINAL["tile"](x, repeats)
    counts = tuple(repeats) if isinstance(repeats, (list, tuple)) else (repeats,)
    sizes = (*(1,) * (len(counts) - len(x.shape)), *x.shape)
    counts = (*(1,) * (len(sizes) - len(counts)), *counts)
    fixed = tuple(count if isinstance(count, int) else 1 for count in counts)
    if any(count > 1 for count in fixed):
        x = ORIGINAL["tile"](x, fixed)
    for size, count in zip(sizes, counts, strict=True):
        if isinstance(count, Dimension) and size != 1:
            raise TypeError("it repeats an axis wider than 1 an unknown number of times")
    shape = tuple(
        count if isinstance(count, Dimension) else Dimension(x, axis) if now is None else now
        for axis, (count, now) in enumerate(zip(counts, x.shape[-len(counts) :], strict=False))
    )
    return _broadcast_to(x, shape)


def _repeat(x: Any, repeats: Any, axis: Any = None) -> Any:
    if not isinstance(repeats, Dimension):
        return ORIGINAL["repeat"](x, repeats, axis=axis)
    if axis is None:
        raise TypeError("it repeats a flat tensor an unknown number of times")
    counts = [1] * len(x.shape)
    counts[axis] = repeats  # type: ignore[call-overload]
    return _tile(x, counts)


def _cast(x: Any, dtype: Any) -> Any:
    return x.scalar(dtype) if isinstance(x, Dimension) else ORIGINAL["cast"](x, dtype)


def _convert_to_tensor(x: Any, dtype: Any = None, sparse: Any = None, ragged: Any = None) -> Any:
    if isinstance(x, Dimension):
        return x.scalar(dtype or "int32")
    return ORIGINAL["convert_to_tensor"](x, dtype=dtype, sparse=sparse, ragged=ragged)


def _of_scalars(name: str) -> Callable[..., Any]:
    """The function, with the sizes themselves in the place of unknown sizes."""

    def call(x1: Any, x2: Any) -> Any:
        return ORIGINAL[name](plain(x1), plain(x2))

    return call


_BINARY = "add subtract multiply divide floor_divide minimum maximum less less_equal greater"


def _get_item(original: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """Indexing of symbolic tensors that also takes `x[:, :n]` for an unknown `n`."""

    def index(x: Any, key: Any) -> Any:
        if key is None:
            return ORIGINAL["expand_dims"](x, 0)
        keys = key if isinstance(key, tuple) else (key,)
        if not has_dimension(keys):
            return original(x, key)
        if any(k is None or k is Ellipsis for k in keys):
            raise TypeError("it indexes up to an unknown size, and adds axes at once")
        rest = []
        for axis, part in enumerate(keys):
            if not has_dimension(part):
                rest.append(part)
                continue
            if part.step not in (None, 1) or not isinstance(part.stop, Dimension) or part.start:
                raise TypeError("it indexes with an unknown size as a start or a step")
            x = _part(x, axis, 0, part.stop)
            rest.append(slice(None))
        return original(x, tuple(rest)) if any(k != slice(None) for k in rest) else x

    return index


def _triangle(name: str, comparison: str) -> Callable[..., Any]:
    """`tril` or `triu`, as a mask where the size of the matrix is unknown."""

    def call(x: Any, k: Any = 0) -> Any:
        if not isinstance(x, keras.KerasTensor) or None not in x.shape[-2:]:
            return ORIGINAL[name](x, k)
        rows, columns = _indices(x, -2), _indices(x, -1)
        beyond = ORIGINAL["subtract"](columns, ORIGINAL["expand_dims"](rows, -1))
        mask = ORIGINAL[comparison](beyond, k)
        if keras.backend.standardize_dtype(x.dtype) == "bool":
            return ORIGINAL["logical_and"](x, mask)
        return ORIGINAL["where"](mask, x, ORIGINAL["zeros_like"](x))

    return call


def _indices(x: Any, axis: int) -> Any:
    """0, 1, 2, … along one of the last two axes."""
    size = x.shape[axis]
    if size is None:
        return Dimension(x, axis % len(x.shape)).indices("int32")
    return ORIGINAL["arange"](size, dtype="int32")


def _multiplied(original: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """Products of symbolic tensors; of two masks their conjunction, which not all backends give."""

    def product(x: Any, other: Any) -> Any:
        dtypes = {str(getattr(factor, "dtype", None)) for factor in (x, other)}
        return ORIGINAL["logical_and"](x, other) if dtypes == {"bool"} else original(x, other)

    return product


# What replaces functions of `keras.ops`.
FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "shape": _shape,
    "ndim": _ndim,
    "arange": _arange,
    "broadcast_to": _broadcast_to,
    "ones": _ones,
    "zeros": _zeros,
    "full": _full,
    "reshape": _reshape,
    "slice": _slice,
    "tile": _tile,
    "repeat": _repeat,
    "cast": _cast,
    "convert_to_tensor": _convert_to_tensor,
    "tril": _triangle("tril", "less_equal"),
    "triu": _triangle("triu", "greater_equal"),
    **{name: _of_scalars(name) for name in (*_BINARY.split(), "greater_equal", "equal")},
}

# What replaces methods of symbolic tensors, made from the methods themselves.
METHODS: Mapping[str, Callable[..., Any]] = {"__getitem__": _get_item, "__mul__": _multiplied}

_HARD_SILU, _MISH = keras.activations.hard_silu, keras.activations.mish


def _hard_silu(x: Any) -> Any:
    return keras.ops.hard_silu(x) if isinstance(x, keras.KerasTensor) else _HARD_SILU(x)


def _mish(x: Any) -> Any:
    if not isinstance(x, keras.KerasTensor):
        return _MISH(x)
    return keras.ops.multiply(x, keras.ops.tanh(keras.ops.softplus(x)))


_STAND_INS: dict[Callable[..., Any], Callable[..., Any]] = {_HARD_SILU: _hard_silu, _MISH: _mish}


def activation_swaps(layers: list[Any]) -> Iterator[tuple[dict[str, Any], str, Any, Any]]:
    """Attributes that hold such a function, as `(attributes, name, function, replacement)`."""
    for attributes in (vars(keras.activations), *map(vars, layers)):
        for name, value in attributes.items():
            try:
                new = _STAND_INS.get(value)
            except TypeError:
                continue  # Not hashable, so it is no function.
            if new is not None:
                yield attributes, name, value, new
