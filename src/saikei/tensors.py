"""Tensors of a backend as NumPy arrays, in dtypes that NumPy can compute with.

Keras is imported where it is needed, so that wrong data is refused at once.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]


def to_numpy(value: Any) -> Array:
    """A tensor, a list or an array as an array of the same dtype.

    Args:
        value: what to convert; TensorFlow gives a single bfloat16 number as no array.
    """
    import keras

    if not keras.ops.is_tensor(value):
        return np.asarray(value)
    if not keras.ops.ndim(value):
        return np.asarray(keras.ops.convert_to_numpy(keras.ops.reshape(value, (1,)))).reshape(())
    return np.asarray(keras.ops.convert_to_numpy(value))


def to_known(value: Any) -> Array:
    """Like `to_numpy`, with dtypes that NumPy has not (bfloat16) as float32, which holds them all.

    NumPy can neither store those nor tell that they are floating-point numbers.
    """
    array = to_numpy(value)
    return array.astype(np.float32) if is_half(array.dtype, but="float16") else array


def to_floats(value: Any) -> Array:
    """Like `to_numpy`, with all floating-point numbers of half precision or less as float32.

    Sums and logarithms of float16 lose what comes behind the third digit.
    """
    array = to_numpy(value)
    return array.astype(np.float32) if is_half(array.dtype) else array


def numpy_dtype(name: str) -> np.dtype[Any]:
    """NumPy's dtype of that name; Keras brings those that NumPy has not, such as bfloat16."""
    import keras

    if name == "string":
        # A text stands elsewhere, and the tensor holds where.
        return np.dtype(object)
    found: np.dtype[Any] = np.dtype(keras.backend.standardize_dtype(name))
    return found


def is_half(dtype: Any, but: str = "") -> bool:
    """Whether a dtype holds floating-point numbers of 16 bits or less.

    Args:
        dtype: a dtype, or its name.
        but: the name of one that does not count.
    """
    name = str(dtype)
    return name != but and (name in ("float16", "bfloat16") or name.startswith("float8"))


def rounding(dtype: Any) -> float:
    """The relative rounding error of a dtype, or of one of that name: 2⁻⁸ for bfloat16.

    Args:
        dtype: of floating-point numbers.
    """
    bits = {"bfloat16": 8, "float16": 11, "float32": 24, "float64": 53}
    return 2.0 ** -bits.get(str(dtype), 24)
