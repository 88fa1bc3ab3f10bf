"""The triangles of matrices of unknown size, while a `call` is traced.

Keras's `tril` and `triu` fail on TensorFlow for an offset beyond the matrix, and take no symbolic
offset. Comparing the numbers of rows and columns works for every size and on every backend.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras

from saikei.graph.dimensions import Dimension

# The functions as they are, also while others stand in their place.
_ORIGINAL = dict(vars(keras.ops))


def _triangle(name: str, comparison: str) -> Callable[..., Any]:
    """`tril` or `triu`, as a mask where the size of the matrix is unknown."""

    def call(x: Any, k: Any = 0) -> Any:
        if not isinstance(x, keras.KerasTensor) or None not in x.shape[-2:]:
            return _ORIGINAL[name](x, k)
        rows, columns = _indices(x, -2), _indices(x, -1)
        beyond = _ORIGINAL["subtract"](columns, _ORIGINAL["expand_dims"](rows, -1))
        mask = _ORIGINAL[comparison](beyond, k)
        if keras.backend.standardize_dtype(x.dtype) == "bool":
            return _ORIGINAL["logical_and"](x, mask)
        return _ORIGINAL["where"](mask, x, _ORIGINAL["zeros_like"](x))

    return call


def _indices(x: Any, axis: int) -> Any:
    """0, 1, 2, … along one of the last two axes."""
    size = x.shape[axis]
    if size is None:
        return Dimension(x, axis % len(x.shape)).indices("int32")
    return _ORIGINAL["arange"](size, dtype="int32")


def multiplied(original: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """Products of symbolic tensors; of two masks what both let through, as not everywhere."""

    def product(x: Any, other: Any) -> Any:
        dtypes = {str(getattr(factor, "dtype", None)) for factor in (x, other)}
        return _ORIGINAL["logical_and"](x, other) if dtypes == {"bool"} else original(x, other)

    return product


# What stands in for functions of `keras.ops` while a call is traced.
TRIANGLES: Mapping[str, Callable[..., Any]] = {
    "tril": _triangle("tril", "less_equal"),
    "triu": _triangle("triu", "greater_equal"),
}
