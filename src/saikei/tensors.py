"""Tensors of a backend as NumPy arrays, in dtypes that NumPy can compute with.

Keras is imported within the functions, so that wrong data is refused before Keras is loaded.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]


def to_numpy(value: Any) -> Array:
    """A tensor, a list or an array as an array of the same dtype.

    Args:
        value: Tensor, list or array. A single bfloat16 number of TensorFlow is converted too.
    """
    import keras

    if not keras.ops.is_tensor(value):
        return np.asarray(value)
    if not keras.ops.ndim(value):
        return np.asarray(keras.ops.convert_to_numpy(keras.ops.reshape(value, (1,)))).reshape(())
    return np.asarray(keras.ops.convert_to_numpy(value))


def to_known(value: Any) -> Array:
    """Like `to_numpy`, with dtypes that NumPy lacks (bfloat16) as float32, which holds them all.

    NumPy can neither store them nor recognise them as floating-point numbers.
    """
    array = to_numpy(value)
    return array.astype(np.float32) if is_half(array.dtype, but="float16") else array


def to_floats(value: Any) -> Array:
    """Like `to_numpy`, with all floating-point numbers of half precision or less as float32.

    Sums and logarithms of float16 are exact to three digits only.
    """
    array = to_numpy(value)
    return array.astype(np.float32) if is_half(array.dtype) else array


def numpy_dtype(name: str) -> np.dtype[Any]:
    """NumPy's dtype of that name; Keras adds those that NumPy lacks, such as bfloat16."""
    import keras

    if name == "string":
        # The tensor holds references to the texts.
        return np.dtype(object)
    found: np.dtype[Any] = np.dtype(keras.backend.standardize_dtype(name))
    return found


def is_half(dtype: Any, but: str = "") -> bool:
    """Whether a dtype holds floating-point numbers of 16 bits or less.

    Args:
        dtype: A dtype, or its name.
        but: Name of a dtype for which the answer is `False`.
    """
    name = str(dtype)
    return name != but and (name in ("float16", "bfloat16") or name.startswith("float8"))


def rounding(dtype: Any) -> float:
    """The relative rounding error of a dtype, or of one of that name: 2⁻⁸ for bfloat16."""
    bits = {"bfloat16": 8, "float16": 11, "float32": 24, "float64": 53}
    return 2.0 ** -bits.get(str(dtype), 24)
